"""Checkpoints in a bucket: ours through fsspec (S3, Google Cloud Storage, Azure), others from packages."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlsplit

from detbuild.config.storage import S3, STORAGES, Azure, Gcs, StorageConfig
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


_CONNECT: Final = 15  # timeout of a connection, seconds
_ANSWER: Final = 60  # timeout of a response, seconds
_SLOWEST: Final = 128 << 10  # bytes per second; a slower transfer times out
_PARTS: Final = 3  # concurrent parts of a large file, each 50 MB in memory
_PIECE: Final = 100 << 20  # bytes between two progress reports
_PATIENCE: Final = 120.0  # seconds in addition to the transfer time


class Bucket(Protocol):
    """What a storage does: it keeps files by key. Each method may raise any error, which is retried.

    A key is `UUID/path/of/file`; the storage puts its own prefix before it.
    """

    def sizes(self, uuid: str) -> Mapping[str, int]:
        """Return the size in bytes of each file whose key begins with `UUID/`, by key."""

    def put(self, file: Path, key: str, progress: Callable[[], None]) -> None:
        """Upload a file, or replace it; a large one calls `progress` every 100 MB or more often."""

    def get(self, key: str, file: Path, progress: Callable[[], None]) -> None:
        """Download a file; a large one calls `progress` every 100 MB or more often."""

    def write(self, key: str, body: bytes) -> None:
        """Write a small file, or replace it."""

    def read(self, key: str) -> bytes:
        """Read a small file; raise FileNotFoundError if it does not exist."""

    def remove(self, key: str) -> None:
        """Remove a file; it may raise FileNotFoundError if it does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """The location of a bucket for fsspec, and its credentials."""

    protocol: str  # fsspec's name
    root: str  # bucket and prefix
    extra: str  # the extra of this distribution that installs the library
    options: Mapping[str, object] = field(default_factory=dict, repr=False)  # with credentials


def bucket_of(storage: StorageConfig) -> StorageConfig | None:
    """Return the storage if it is a bucket; None if checkpoints stay on this host."""
    return storage if storage.bucket_url else None


def open_bucket(storage: StorageConfig) -> Bucket:
    """Open the bucket of a storage; our own connect with the first call.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
    """
    match storage:
        case S3() | Gcs() | Azure():
            return FsspecBucket(address_of(storage))
        case _:
            opener = cast("Callable[[StorageConfig], Bucket]", STORAGES.call(str(storage.type)))
            return opener(storage)


def address_of(storage: S3 | Gcs | Azure) -> Address:
    """Return fsspec's address of a bucket.

    The libraries look up settings that the config does not have (keys, region, project) in the environment,
    in the files of their command line tools, and from the machine's identity.
    """
    protocol, _, root = str(storage.bucket_url).partition("://")
    match storage:
        case S3():
            return Address(protocol=protocol, root=root, extra="s3", options=_s3(storage))
        case Gcs():
            return Address(protocol=protocol, root=root, extra="gcs")
        case Azure():
            options = {"max_concurrency": _PARTS, **_azure(storage)}
            return Address(protocol=protocol, root=root, extra="azure", options=options)


def _s3(storage: S3) -> dict[str, object]:
    config = {"connect_timeout": _CONNECT, "read_timeout": _ANSWER, "retries": {"max_attempts": 2}}
    given = {"key": storage.access_key, "secret": storage.secret_key, "endpoint_url": storage.endpoint_url}
    return {
        "config_kwargs": config,
        "max_concurrency": _PARTS,
        **{name: value for name, value in given.items() if value},
    }


def _azure(storage: Azure) -> dict[str, object]:
    """Build adlfs options; a secret always becomes a connection string.

    adlfs would prefer a connection string of the environment to any other option, and only a connection
    string supports a server without TLS or with several accounts.
    """
    if storage.connection_string:
        return {"connection_string": storage.connection_string}
    account = storage.account_url or ""
    url = urlsplit(account if "://" in account else f"https://{account}")
    path = url.path.strip("/")
    name, secret = path or url.netloc.partition(".")[0], storage.credential or url.query
    if not secret:  # credentials of the environment or the machine's identity, not anonymous access
        return {"account_name": name, "account_host": f"{url.netloc}/{path}".rstrip("/"), "anon": False}
    signed = "sig=" in secret
    way_in = (
        f"SharedAccessSignature={secret.lstrip('?')}" if signed else f"AccountName={name};AccountKey={secret}"
    )
    endpoint = f"{url.scheme}://{url.netloc}/{path}".rstrip("/")
    return {"connection_string": f"BlobEndpoint={endpoint};{way_in}"}


class _FileSystem(Protocol):
    """The part of fsspec's AbstractFileSystem that is used here."""

    def put_file(self, file: str, path: str, /, callback: object) -> None: ...
    def get_file(self, path: str, file: str, /, callback: object) -> None: ...
    def pipe_file(self, path: str, value: bytes) -> None: ...
    def cat_file(self, path: str) -> bytes: ...
    def rm_file(self, path: str) -> None: ...
    def find(self, path: str, *, detail: bool) -> Mapping[str, Mapping[str, object]]: ...
    def invalidate_cache(self) -> None: ...


def file_system(address: Address) -> _FileSystem:
    """Create fsspec's file system without connecting to the service.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
    """
    try:
        import fsspec

        made = fsspec.filesystem(
            address.protocol, use_listings_cache=False, skip_instance_cache=True, **address.options
        )
    except ImportError as error:
        raise ConfigError(
            f"checkpoint_storage.type needs a library that is not installed: {error}",
            hint=f"pip install 'detbuild[{address.extra}]'",
        ) from error
    return cast("_FileSystem", made)


class FsspecBucket:
    """A bucket of a cloud that fsspec supports."""

    def __init__(self, address: Address) -> None:
        self._fs = file_system(address)
        self._root = address.root

    def sizes(self, uuid: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        found = self._fs.find(f"{self._root}/{uuid}", detail=True)
        names = {name.lstrip("/"): entry for name, entry in found.items()}
        return {
            name.removeprefix(f"{self._root}/"): int(str(entry["size"]))
            for name, entry in names.items()
            if name.startswith(f"{self._root}/{uuid}/") and entry.get("type") == "file"
        }

    def put(self, file: Path, key: str, progress: Callable[[], None]) -> None:
        self._fs.put_file(str(file), f"{self._root}/{key}", callback=_callback(progress))

    def get(self, key: str, file: Path, progress: Callable[[], None]) -> None:
        self._fs.get_file(f"{self._root}/{key}", str(file), callback=_callback(progress))

    def write(self, key: str, body: bytes) -> None:
        try:
            self._fs.pipe_file(f"{self._root}/{key}", body)
        except FileNotFoundError:  # gcsfs names only the URL of the service
            raise FileNotFoundError(f"there is no bucket {self._root.partition('/')[0]}") from None

    def read(self, key: str) -> bytes:
        return self._fs.cat_file(f"{self._root}/{key}")

    def remove(self, key: str) -> None:
        self._fs.rm_file(f"{self._root}/{key}")


def _callback(progress: Callable[[], None]) -> object:
    from fsspec.callbacks import Callback

    return Callback(hooks={"tell": lambda *_, **__: progress()})


class CheckpointBucket:
    """A bucket as checkpoints use it: files by UUID and path, with a time-out for each call.

    Before each slow operation, `allow` is called with its timeout in seconds.
    """

    def __init__(self, bucket: Bucket, allow: Callable[[float], None]) -> None:
        self._bucket, self._allow = bucket, allow

    def sizes(self, uuid: str) -> dict[str, int]:
        """Return the size in bytes of each file of a checkpoint in the bucket, by its path."""
        self._allow(_PATIENCE)
        start = _key(uuid, "")
        return {key.removeprefix(start): size for key, size in self._bucket.sizes(uuid).items()}

    def put(self, file: Path, uuid: str, path: str) -> None:
        self._allow(_allowed(file.stat().st_size))
        self._bucket.put(file, _key(uuid, path), self._progress)

    def get(self, uuid: str, path: str, file: Path) -> None:
        self._allow(_allowed(_PIECE))
        self._bucket.get(_key(uuid, path), file, self._progress)

    def write(self, uuid: str, path: str, body: bytes) -> None:
        self._allow(_PATIENCE)
        self._bucket.write(_key(uuid, path), body)

    def read(self, uuid: str, path: str) -> bytes | None:
        """Read a file; None if it does not exist."""
        self._allow(_PATIENCE)
        try:
            return self._bucket.read(_key(uuid, path))
        except FileNotFoundError:
            return None

    def remove(self, uuid: str, path: str) -> None:
        """Remove a file if it exists."""
        self._allow(_PATIENCE)
        with suppress(FileNotFoundError):
            self._bucket.remove(_key(uuid, path))

    def check_writable(self) -> None:
        """Check that a small file can be written, read and removed."""
        name, body = f".detbuild-{secrets.token_hex(8)}", b"detbuild checks that it can write here\n"
        self.write(name, "test", body)
        found = self.read(name, "test")
        self.remove(name, "test")
        if found != body:
            raise OSError("a test file was written, but cannot be read back")

    def _progress(self) -> None:
        self._allow(_allowed(_PIECE))


def _key(uuid: str, path: str) -> str:
    """Return the key of a file; reject `..`, which libraries may resolve out of the checkpoint."""
    if not {".", ".."}.isdisjoint([uuid, *path.split("/")]) or "/" in uuid:
        raise ValueError(f"not a path in a checkpoint: {uuid}/{path}")
    return f"{uuid}/{path}"


def _allowed(size: int) -> float:
    return _PATIENCE + min(size, _PIECE) / _SLOWEST
