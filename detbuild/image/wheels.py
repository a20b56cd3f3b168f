"""Wheels of the host's own folders that a build could want; the rest of such a folder stays where it is."""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Final

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.image.requirements import normalized, parse_requirements
from detbuild.image.versions import allows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK: Final = 1 << 20  # bytes: wheels can be larger than memory should be asked for


def wanted_wheels(
    folders: Iterable[Path], lines: Iterable[str], *, machine: str, cuda: bool
) -> ContextSnapshot:
    """Wheels for the projects that pip's lines name, and for what those wheels themselves require.

    Args:
        folders: Local folders of pip's find-links.
        lines: What pip will be asked for, as in requirements.txt.
        machine: Architecture of the image.
        cuda: Whether it is for GPUs: pip would take "2.13.0+cpu" for "==2.13.0", and the other way round.
    """
    stored = [
        path for folder in folders for path in sorted(folder.glob("*.whl")) if _fits(path, machine, cuda=cuda)
    ]
    chosen: dict[str, Path] = {}
    asked = {r.name: r.specifiers for r in parse_requirements("\n".join(lines)).requirements}
    waiting, seen = list(asked), set(asked)
    while waiting:
        name = waiting.pop()
        for path in stored:
            project, version = path.name.split("-")[:2]
            if normalized(project) == name and allows(asked.get(name, ()), version):
                chosen.setdefault(path.name, path)
                fresh = set(_requires(path)) - seen
                seen |= fresh
                waiting += fresh
    return ContextSnapshot(tuple(_entry(chosen[name]) for name in sorted(chosen)))


def _fits(path: Path, machine: str, *, cuda: bool) -> bool:
    match path.stem.split("-"):
        case [_, version, *_, _, _, platform]:
            build = version.partition("+")[2]
        case _:
            return False
    if platform != "any" and machine not in platform:
        return False
    return not build.startswith("cpu") if cuda else build.startswith("cpu") or not build.startswith("cu")


def _requires(path: Path) -> Iterator[str]:
    """Projects that the wheel's metadata name, whatever the marker or extra."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = BytesHeaderParser().parsebytes(archive.read(metadata))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return
    lines = "\n".join(headers.get_all("Requires-Dist", []))
    yield from (requirement.name for requirement in parse_requirements(lines).requirements)


def _entry(path: Path) -> Entry:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Entry(path.name, "file", size=size, sha256=digest.hexdigest(), source=str(path))
