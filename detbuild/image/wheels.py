"""Wheels of the host's own folders that a build could want; the rest of such a folder stays where it is."""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.image.requirements import normalized, parse_requirements
from detbuild.image.versions import allows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


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
    # Wheels are large and not part of the tag: name, size and time tell one from another well enough.
    status = path.stat()
    identity = hashlib.sha256(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    return Entry(path=path.name, kind="file", size=status.st_size, sha256=identity, source=str(path))
