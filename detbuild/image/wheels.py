"""Selects the wheels in the host's own directories that a build may need."""

from __future__ import annotations

import zipfile
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

from detbuild.context.snapshot import ContextSnapshot, Entry, hash_file, raw, text
from detbuild.errors import ContextError
from detbuild.image.requirements import normalized, requirement_of
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from packaging.specifiers import SpecifierSet

    from detbuild.context.snapshot import HashCache


def needed_wheels(
    folders: Iterable[Path],
    lines: Iterable[str] | None,
    *,
    machine: str,
    cuda: bool,
    cache: HashCache | None = None,
) -> ContextSnapshot:
    """Return the wheels of projects in pip's requirements, and of their dependencies.

    Args:
        folders: Local directories of pip's find-links.
        lines: Requirements without options; None selects every wheel.
        machine: Architecture of the image.
        cuda: Whether the image is for GPUs: pip accepts "2.13.0+cpu" for "==2.13.0", and vice versa.
        cache: Hashes of earlier builds; the caller saves it.
    """
    stored = _stored(folders, machine, cuda=cuda)
    required = {name: None for name, *_ in stored} if lines is None else _required(lines)
    chosen: dict[str, Path] = {}
    waiting, seen = list(required), set(required)
    while waiting:
        name = waiting.pop()
        found = {
            path.name: path
            for project, version, path in stored
            if project == name and _allows(required.get(name), version) and path.name not in chosen
        }
        chosen.update(found)
        if len(chosen) < len(stored):  # opening an archive of thousands of files takes time
            fresh = {needed for path in found.values() for needed in _requires(path)} - seen
            seen |= fresh
            waiting += fresh
    return ContextSnapshot(tuple(_entry(chosen[name], cache) for name in sorted(chosen)))


def _required(lines: Iterable[str]) -> dict[str, SpecifierSet]:
    """Map each project to its combined specifiers."""
    required: dict[str, SpecifierSet] = {}
    for name, specifiers in filter(None, map(requirement_of, lines)):
        required[name] = required[name] & specifiers if name in required else specifiers
    return required


def _allows(specifiers: SpecifierSet | None, version: str) -> bool:
    return specifiers is None or specifiers.contains(version, prereleases=True)


def _stored(folders: Iterable[Path], machine: str, *, cuda: bool) -> list[tuple[str, str, Path]]:
    """Return project, version and path of each suitable wheel; the first directory wins."""
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
    """Yield the projects that a wheel requires, for any marker or extra."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = BytesHeaderParser().parsebytes(archive.read(metadata))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return
    yield from _required(headers.get_all("Requires-Dist", []))


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
