"""The storage `folder`: a bucket in a directory that runs do not see, e.g. on a network disk."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from detbuild.config.secrets import SECRET
from detbuild.config.section import AbsolutePath
from detbuild.config.storage import StorageConfig


class Config(StorageConfig):
    type: Literal["folder"] = "folder"
    """A directory that runs do not see."""
    path: AbsolutePath
    """Absolute path of the directory."""
    token: Annotated[str, SECRET]
    """Secret that selects a part of the directory; never shown."""

    @property
    def bucket_url(self) -> str:
        return f"folder://{self.path}"


def open(config: Config) -> Folder:
    return Folder(Path(config.path) / hashlib.sha256(config.token.encode()).hexdigest())


class Folder:
    """A bucket: a file's path below the directory is its key. Each method may raise any error."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def sizes(self, uuid: str) -> Mapping[str, int]:
        files = (path for path in (self.root / uuid).rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.stat().st_size for path in files}

    def put(self, file: Path, key: str, progress: Callable[[], None]) -> None:
        shutil.copyfile(file, self.place(key))

    def get(self, key: str, file: Path, progress: Callable[[], None]) -> None:
        shutil.copyfile(self.root / key, file)

    def write(self, key: str, body: bytes) -> None:
        self.place(key).write_bytes(body)

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def remove(self, key: str) -> None:
        (self.root / key).unlink()

    def place(self, key: str) -> Path:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        return self.root / key
