"""Where checkpoints are kept, and how many."""

from __future__ import annotations

import posixpath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, Tag, WithJsonSchema, model_validator

from detbuild.config.clauses import but, given, text, when
from detbuild.config.fields import Count
from detbuild.config.mounts import PARENT, ContainerPath, HostPath, Propagation
from detbuild.config.secrets import SECRET
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
    """How many of the best checkpoints of the experiment are kept."""
    save_trial_best: Count = 1
    """How many of the best checkpoints of each trial are kept."""
    save_trial_latest: Count = 1
    """How many of the newest checkpoints of each trial are kept."""


class OwnFolder(_Storage):
    """The experiment's own folder; what a config without `type` means."""

    type: None = None
    """Absent: the experiment's own folder."""


class SharedFs(_Storage):
    """A directory of the host, mounted into every trial."""

    type: Literal["shared_fs"] = "shared_fs"
    """A directory of the host."""
    host_path: HostPath
    """The directory on the host; absolute."""
    storage_path: str | None = None
    """Where below `host_path` the checkpoints lie."""
    propagation: Propagation = "rprivate"
    """Whether mounts below it pass from one side to the other."""
    container_path: str | None = None
    """Of old versions; without meaning here."""
    checkpoint_path: str | None = None
    """Of old versions; without meaning here."""
    tensorboard_path: str | None = None
    """Of old versions; without meaning here."""

    @model_validator(mode="after")
    def _inside(self) -> SharedFs:
        relative = posixpath.relpath(self.directory, posixpath.normpath(self.host_path))
        if relative.split("/")[0] == "..":
            what = "must lie below host_path"
            raise wrong(what, at=("storage_path",), hint="make it relative, such as `checkpoints`")
        return self

    @property
    def directory(self) -> str:
        """Where the checkpoints lie on the host."""
        return posixpath.normpath(posixpath.join(self.host_path, self.storage_path or ""))


class Directory(_Storage):
    """A directory of the container that the user mounts or that is baked into the image."""

    type: Literal["directory"] = "directory"
    """A directory of the container that is mounted by `bind_mounts` or baked into the image."""
    container_path: ContainerPath
    """The directory in the container."""


class S3(_Storage):
    type: Literal["s3"] = "s3"
    """Amazon S3, or a server that speaks like it."""
    bucket: str
    """The bucket."""
    access_key: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """The id of the key; never shown. Absent: as boto3 finds it."""
    secret_key: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """The key; never shown."""
    endpoint_url: str | None = None
    """A server of one's own, such as `http://minio:9000`."""
    prefix: Prefix | None = None
    """What the names of all objects begin with."""


class Gcs(_Storage):
    type: Literal["gcs"] = "gcs"
    """Google Cloud Storage."""
    bucket: str
    """The bucket."""
    prefix: Prefix | None = None
    """What the names of all objects begin with."""


class Azure(_Storage):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [given("connection_string"), given("account_url")],
            **when(given("credential"), given("account_url")),
        }
    )

    type: Literal["azure"] = "azure"
    """Azure Blob Storage."""
    container: str
    """The container of blobs."""
    connection_string: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """How to get in; never shown. Either this or `account_url`."""
    account_url: str | None = None
    """The account. Either this or `connection_string`."""
    credential: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """The key that goes with `account_url`; never shown."""

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
