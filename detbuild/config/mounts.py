"""Bind mounts: allowed host paths and container paths."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, WithJsonSchema

from detbuild.config.clauses import matching_text, not_matching
from detbuild.config.section import Section, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.config.clauses import Clause

Propagation = Literal["rprivate", "private", "rshared", "shared", "rslave", "slave"]

# A container that writes to any of these can break or take over the host.
_WHOLE_HOST: Final = frozenset({"/", "/boot", "/dev", "/etc", "/run", "/var", "/var/lib", "/var/run"})
_KERNEL_AND_ENGINE: Final = ("/proc", "/sys", "/var/lib/docker", "/var/lib/containerd")
SOCKETS: Final = frozenset({"docker.sock", "containerd.sock", "podman.sock", "crio.sock"})
_CONTAINER_PATHS: Final = ("/proc", "/sys", "/opt/detbuild", "/run/detbuild")


def host_path(path: str) -> str:
    """Accept an absolute host path that is safe to mount.

    Raises:
        PydanticCustomError: the path is relative, or a system directory of the host.
    """
    if not path.startswith("/"):
        raise wrong(f"must be absolute, not {path[:40]!r}", hint="start it with `/`")
    found = reserved(posixpath.normpath(path).replace("//", "/"))
    if found is not None:
        what, hint = found
        raise wrong(what, hint=hint)
    return path


def reserved(normal: str, *, engine_root: str = "") -> tuple[str, str] | None:
    """Return why a normalized host path is not safe to mount, and a hint; None if it is safe."""
    if posixpath.basename(normal) in SOCKETS:
        return "is a container engine's socket, which gives root access to the host", "remove the mount"
    of_engine = (*_KERNEL_AND_ENGINE, engine_root) if engine_root else _KERNEL_AND_ENGINE
    if normal in _WHOLE_HOST or _within(normal, of_engine):
        return f"{normal[:40]} is a system directory of the host", "mount a data directory"
    return None


def container_path(path: str) -> str:
    """Accept a path in the container; a relative one is below the work directory.

    Raises:
        PydanticCustomError: the path is the work directory, contains `..`, or hides what a trial needs.
    """
    if ".." in path.split("/"):
        raise wrong("must not contain `..`")
    normal = posixpath.normpath(path).replace("//", "/") if path else "."
    if normal == ".":
        raise wrong("is the work directory itself", hint="name a directory below it, e.g. `data`")
    if normal == "/" or _within(normal, _CONTAINER_PATHS):
        raise wrong(f"{normal[:40]} is in use by the container itself", hint="mount it elsewhere")
    return path


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


# The same rules as patterns, for paths without `..`: those that `normpath` maps to a reserved path.
PARENT: Final = r"(?:[\s\S]*/)?\.\.(?:/[\s\S]*)?"
_STEP: Final = r"/(?:\.?/)*"  # between two names
_END: Final = rf"(?:{_STEP}\.?)?"
_ROOT: Final = rf"{_STEP}\.?"


def _steps(path: str) -> str:
    return _STEP + _STEP.join(map(re.escape, path.strip("/").split("/")))


def _below(paths: Iterable[str]) -> str:
    return "|".join(rf"{_steps(path)}(?:/[\s\S]*)?" for path in paths)


def _host_text() -> Clause:
    whole_host = "|".join(rf"{_steps(path)}{_END}" for path in sorted(_WHOLE_HOST - {"/"}))
    sockets = "|".join(map(re.escape, sorted(SOCKETS)))
    reserved_ = rf"{_ROOT}|{whole_host}|{_below(_KERNEL_AND_ENGINE)}|[\s\S]*/(?:{sockets}){_END}"
    refused = rf"{not_matching(PARENT)}(?:{reserved_})"
    return matching_text(
        rf"{not_matching(refused)}/[\s\S]*", "an absolute path outside the host's system directories"
    )


def _container_text() -> Clause:
    refused = rf"{PARENT}|(?:\.{_END})?|{_ROOT}|{_below(_CONTAINER_PATHS)}"
    return matching_text(
        rf"{not_matching(refused)}[\s\S]*", "a container path that is not in use, without `..`"
    )


HostPath = Annotated[str, AfterValidator(host_path), WithJsonSchema(_host_text())]
ContainerPath = Annotated[str, AfterValidator(container_path), WithJsonSchema(_container_text())]


class BindMount(Section):
    host_path: HostPath
    """Absolute path of the directory on the host."""
    container_path: ContainerPath
    """Mount point in the container; a relative path is below the work directory."""
    read_only: bool = False
    """Mount read-only."""
    propagation: Propagation = "rprivate"
    """Mount propagation, as in Docker."""


def distinct(mounts: tuple[BindMount, ...]) -> tuple[BindMount, ...]:
    """Reject two mounts with the same container path."""
    places: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        first = places.setdefault(posixpath.normpath(mount.container_path), index)
        if first != index:
            what = f"is also the container_path of bind_mounts[{first}]"
            raise wrong(what, at=(index, "container_path"), hint="give each mount its own path")
    return mounts
