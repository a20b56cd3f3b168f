"""Checkpoint storage: location and retention."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from detbuild.config.environment import PARENT, ContainerPath, HostPath, Propagation
from detbuild.config.secrets import SECRET
from detbuild.config.section import (
    Count,
    OpenUnion,
    Section,
    matching_text,
    not_matching,
    require,
    when,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def _no_parent(value: str) -> str:
    if ".." in value.split("/"):
        raise wrong("must not contain `..`")
    return value


_Prefix = Annotated[
    str,
    AfterValidator(_no_parent),
    WithJsonSchema(matching_text(rf"{not_matching(PARENT)}[\s\S]*", "a path without `..`")),
]


def _url(protocol: str, bucket: str, prefix: str | None = None) -> str:
    below = (prefix or "").strip("/")
    return f"{protocol}://{bucket}" + (f"/{below}" if below else "")


class StorageConfig(Section):
    """The fields of all storages; each adds `type`, a literal with a default, and its own."""

    save_experiment_best: Count = 0
    """Number of best checkpoints of the experiment to keep."""
    save_trial_best: Count = 1
    """Number of best checkpoints of each trial to keep."""
    save_trial_latest: Count = 1
    """Number of newest checkpoints of each trial to keep."""

    if TYPE_CHECKING:
        type: str | None

    @property
    def bucket_url(self) -> str | None:
        """Return the URL of the bucket for messages, without credentials; None if it is on this host."""
        return f"{self.type}://"


class ExperimentDirectory(StorageConfig):
    """The experiment's own directory; the default without `type`."""

    type: None = None
    """Absent: the experiment's own directory."""

    @property
    def bucket_url(self) -> None:
        return None


class SharedFs(StorageConfig):
    """A host directory, mounted into every trial."""

    type: Literal["shared_fs"] = "shared_fs"
    """A host directory."""
    host_path: HostPath
    """Absolute path of the directory on the host."""
    storage_path: str | None = None
    """Path of the checkpoints below `host_path`."""
    propagation: Propagation = "rprivate"
    """Mount propagation, as in Docker."""
    container_path: str | None = None
    """Field of old versions; no effect."""
    checkpoint_path: str | None = None
    """Field of old versions; no effect."""
    tensorboard_path: str | None = None
    """Field of old versions; no effect."""

    @property
    def bucket_url(self) -> None:
        return None

    @model_validator(mode="after")
    def _inside(self) -> SharedFs:
        relative = posixpath.relpath(self.directory, posixpath.normpath(self.host_path))
        if relative.split("/")[0] == "..":
            what = "must be below host_path"
            raise wrong(what, at=("storage_path",), hint="make it relative, e.g. `checkpoints`")
        return self

    @property
    def directory(self) -> str:
        """Return the host directory of the checkpoints."""
        return posixpath.normpath(posixpath.join(self.host_path, self.storage_path or ""))


class Directory(StorageConfig):
    """A container directory, from a bind mount or the image."""

    type: Literal["directory"] = "directory"
    """A container directory, from `bind_mounts` or the image."""
    container_path: ContainerPath
    """Path of the directory in the container."""

    @property
    def bucket_url(self) -> None:
        return None


class S3(StorageConfig):
    type: Literal["s3"] = "s3"
    """Amazon S3, or a compatible server."""
    bucket: str
    """Name of the bucket."""
    access_key: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Access key ID; never shown. Absent: boto3's default credentials."""
    secret_key: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Secret access key; never shown."""
    endpoint_url: str | None = None
    """URL of a compatible server, e.g. `http://minio:9000`."""
    prefix: _Prefix | None = None
    """Prefix of all object names."""

    @property
    def bucket_url(self) -> str:
        return _url("s3", self.bucket, self.prefix)


class Gcs(StorageConfig):
    type: Literal["gcs"] = "gcs"
    """Google Cloud Storage."""
    bucket: str
    """Name of the bucket."""
    prefix: _Prefix | None = None
    """Prefix of all object names."""

    @property
    def bucket_url(self) -> str:
        return _url("gs", self.bucket, self.prefix)


class Azure(StorageConfig):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [require("connection_string"), require("account_url")],
            **when(require("credential"), require("account_url")),
        }
    )

    type: Literal["azure"] = "azure"
    """Azure Blob Storage."""
    container: str
    """Name of the blob container."""
    connection_string: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Connection string; never shown. Either this or `account_url`."""
    account_url: str | None = None
    """URL of the account. Either this or `connection_string`."""
    credential: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Credential for `account_url`; never shown."""

    @property
    def bucket_url(self) -> str:
        return _url("abfs", self.container)

    @model_validator(mode="after")
    def _one_login(self) -> Azure:
        if (self.connection_string is None) == (self.account_url is None):
            raise wrong("needs exactly one of connection_string and account_url", later=True)
        if self.credential is not None and self.account_url is None:
            raise wrong("is only valid with account_url", at=("credential",), later=True)
        return self


TYPES: Final[dict[str, type[StorageConfig]]] = {
    "shared_fs": SharedFs,
    "directory": Directory,
    "s3": S3,
    "gcs": Gcs,
    "azure": Azure,
}

STORAGES: Final = OpenUnion(
    StorageConfig,
    "type",
    TYPES,
    group="detbuild.storages",
    call="open",
    otherwise=ExperimentDirectory,
)
Storage = Annotated[StorageConfig, STORAGES]


def storage_from_json(values: Mapping[str, object]) -> StorageConfig:
    """Parse what `model_dump` of a storage gives, also one of a package."""
    storage = (STORAGES.find(values.get("type")) or ExperimentDirectory).model_validate(dict(values))
    assert isinstance(storage, StorageConfig)
    return storage
