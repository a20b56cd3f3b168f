"""Where checkpoints are kept, and how many."""

from __future__ import annotations

import posixpath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, Tag, WithJsonSchema, model_validator

from detbuild.config.clauses import but, given, text, when
from detbuild.config.fields import Count
from detbuild.config.mounts import PARENT, ContainerPath, HostPath, Propagation
from detbuild.config.section import TAG, Section, chosen_by, wrong


def _no_parent(value: str) -> str:
    if ".." in value.split("/"):
        raise wrong("may not hold `..`")
    return value


Prefix = Annotated[
    str, AfterValidator(_no_parent), WithJsonSchema(text(rf"{but(PARENT)}[\s\S]*", "a path without `..`"))
]


class _Storage(Section):
    save_experiment_best: Count = 0
    save_trial_best: Count = 1
    save_trial_latest: Count = 1


class OwnFolder(_Storage):
    """The experiment's own folder; what a config without `type` means."""

    type: None = None


class SharedFs(_Storage):
    """A directory of the host, mounted into every trial."""

    type: Literal["shared_fs"] = "shared_fs"
    host_path: HostPath
    storage_path: str | None = None
    propagation: Propagation = "rprivate"
    container_path: str | None = None
    checkpoint_path: str | None = None
    tensorboard_path: str | None = None

    @model_validator(mode="after")
    def _inside(self) -> SharedFs:
        relative = posixpath.relpath(self.directory, posixpath.normpath(self.host_path))
        if relative.split("/")[0] == "..":
            what = "must lie below host_path"
            raise wrong(what, at=("storage_path",), mend="make it relative, such as `checkpoints`")
        return self

    @property
    def directory(self) -> str:
        """Where the checkpoints lie on the host."""
        return posixpath.normpath(posixpath.join(self.host_path, self.storage_path or ""))


class Directory(_Storage):
    """A directory of the container that the user mounts or that is baked into the image."""

    type: Literal["directory"] = "directory"
    container_path: ContainerPath


class S3(_Storage):
    type: Literal["s3"] = "s3"
    bucket: str
    access_key: str | None = Field(default=None, repr=False)
    secret_key: str | None = Field(default=None, repr=False)
    endpoint_url: str | None = None
    prefix: Prefix | None = None


class Gcs(_Storage):
    type: Literal["gcs"] = "gcs"
    bucket: str
    prefix: Prefix | None = None


class Azure(_Storage):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [given("connection_string"), given("account_url")],
            **when(given("credential"), given("account_url")),
        }
    )

    type: Literal["azure"] = "azure"
    container: str
    connection_string: str | None = Field(default=None, repr=False)
    account_url: str | None = None
    credential: str | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _one_way_in(self) -> Azure:
        if (self.connection_string is None) == (self.account_url is None):
            raise wrong("needs exactly one of connection_string and account_url", later=True)
        if self.credential is not None and self.account_url is None:
            raise wrong("goes only together with account_url", at=("credential",), later=True)
        return self


_TYPES: Final[dict[str, type[_Storage]]] = {
    "shared_fs": SharedFs,
    "directory": Directory,
    "s3": S3,
    "gcs": Gcs,
    "azure": Azure,
}


Storage = Annotated[
    Annotated[OwnFolder, Tag(TAG + "OwnFolder")]
    | Annotated[SharedFs, Tag(TAG + "SharedFs")]
    | Annotated[Directory, Tag(TAG + "Directory")]
    | Annotated[S3, Tag(TAG + "S3")]
    | Annotated[Gcs, Tag(TAG + "Gcs")]
    | Annotated[Azure, Tag(TAG + "Azure")],
    chosen_by("type", _TYPES, OwnFolder),
]
