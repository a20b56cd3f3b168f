"""Wheels of the host's own folders that a build could want; the rest of such a folder stays where it is."""

from __future__ import annotations

import zipfile
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from detbuild.context.content import hash_file
from detbuild.context.snapshot import ContextSnapshot, Entry, raw, text
from detbuild.errors import ContextError
from detbuild.image.requirements import normalized, requirement_of
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from packaging.specifiers import SpecifierSet

    from detbuild.context.hashes import HashCache


def wanted_wheels(
    folders: Iterable[Path],
    lines: Iterable[str] | None,
    *,
    machine: str,
    cuda: bool,
    cache: HashCache | None = None,
) -> ContextSnapshot:
    """Wheels for the projects that pip's lines name, and for what those wheels themselves require.

    Args:
        folders: Local folders of pip's find-links.
        lines: What pip will be asked for: requirements without options; None wants every wheel.
        machine: Architecture of the image.
        cuda: Whether it is for GPUs: pip would take "2.13.0+cpu" for "==2.13.0", and the other way round.
        cache: Hashes of earlier readings; the caller saves it.
    """
    stored = _stored(folders, machine, cuda=cuda)
    asked = {name: None for name, *_ in stored} if lines is None else _asked(lines)
    chosen: dict[str, Path] = {}
    waiting, seen = list(asked), set(asked)
    while waiting:
        name = waiting.pop()
        found = {
            path.name: path
            for project, version, path in stored
            if project == name and _allows(asked.get(name), version) and path.name not in chosen
        }
        chosen.update(found)
        if len(chosen) < len(stored):  # opening an archive of thousands of files takes time
            fresh = {needed for path in found.values() for needed in _requires(path)} - seen
            seen |= fresh
            waiting += fresh
    return ContextSnapshot(tuple(_entry(chosen[name], cache) for name in sorted(chosen)))


def _asked(lines: Iterable[str]) -> dict[str, SpecifierSet]:
    """Specifiers by project, all that are said of it."""
    asked: dict[str, SpecifierSet] = {}
    for name, specifiers in filter(None, map(requirement_of, lines)):
        asked[name] = asked[name] & specifiers if name in asked else specifiers
    return asked


def _allows(specifiers: SpecifierSet | None, version: str) -> bool:
    return specifiers is None or specifiers.contains(version, prereleases=True)


def _stored(folders: Iterable[Path], machine: str, *, cuda: bool) -> list[tuple[str, str, Path]]:
    """Project, version and path of each wheel that fits; the first folder wins."""
    paths: dict[str, Path] = {}
    for folder in folders:
        paths.update({path.name: path for path in folder.glob("*.whl") if path.name not in paths})
    fitting = (paths[name] for name in sorted(paths) if _fits(paths[name], machine, cuda=cuda))
    parts = ((path, path.name.split("-")) for path in fitting)
    return [(normalized(names[0]), names[1], path) for path, names in parts]


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
    yield from _asked(headers.get_all("Requires-Dist", []))


def _entry(path: Path, cache: HashCache | None) -> Entry:
    source = raw(str(path.absolute()))
    try:
        if cache is not None:
            sha256, size = cache.sha256(source, path.stat())
        else:
            sha256, seen = hash_file(source)
            size = seen.st_size
    except OSError as error:
        raise ContextError(
            f"cannot read {path}: {reason_of(error)}",
            hint="make it readable, or move it out of pip's find-links",
        ) from error
    return Entry(path.name, "file", size=size, sha256=sha256, source=text(source))
