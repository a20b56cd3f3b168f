"""Directories of the host that a trial sees, and those that it may not."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, WithJsonSchema

from detbuild.config.clauses import but, text
from detbuild.config.section import Section, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.config.clauses import Clause

Propagation = Literal["rprivate", "private", "rshared", "shared", "rslave", "slave"]

# Each of these hands over the host, or breaks it, as soon as the container writes.
_WHOLE_HOST: Final = frozenset({"/", "/boot", "/dev", "/etc", "/run", "/var", "/var/lib", "/var/run"})
_KERNEL_AND_ENGINE: Final = ("/proc", "/sys", "/var/lib/docker", "/var/lib/containerd")
SOCKETS: Final = frozenset({"docker.sock", "containerd.sock", "podman.sock", "crio.sock"})
_TAKEN: Final = ("/proc", "/sys", "/opt/detbuild", "/run/detbuild")


def host_path(path: str) -> str:
    """Accept an absolute path of the host that is safe to hand to a container.

    Raises:
        PydanticCustomError: it is relative, or the host's own.
    """
    if not path.startswith("/"):
        raise wrong(f"must be absolute, not {path[:40]!r}", hint="start it with `/`")
    found = reserved(posixpath.normpath(path).replace("//", "/"))
    if found is not None:
        what, hint = found
        raise wrong(what, hint=hint)
    return path


def reserved(normal: str, *, engine_root: str = "") -> tuple[str, str] | None:
    """Why a normal path of the host is not safe to hand to a container, and what to do; None when it is."""
    if posixpath.basename(normal) in SOCKETS:
        return "is an engine's socket: who has it is root on the host", "remove the mount"
    of_engine = (*_KERNEL_AND_ENGINE, engine_root) if engine_root else _KERNEL_AND_ENGINE
    if normal in _WHOLE_HOST or _within(normal, of_engine):
        return f"{normal[:40]} belongs to the host itself", "mount a directory of your data"
    return None


def container_path(path: str) -> str:
    """Accept a place in the container; a relative one lies below the work directory.

    Raises:
        PydanticCustomError: it is the work directory, leaves it, or hides what a trial needs.
    """
    if ".." in path.split("/"):
        raise wrong("may not hold `..`")
    normal = posixpath.normpath(path).replace("//", "/") if path else "."
    if normal == ".":
        raise wrong("is the work directory itself", hint="name a directory below it, such as `data`")
    if normal == "/" or _within(normal, _TAKEN):
        raise wrong(f"{normal[:40]} is taken by the container itself", hint="mount it elsewhere")
    return path


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


# The same in patterns, for paths without `..`: what `normpath` makes one of those, or something below.
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
    refused = rf"{but(PARENT)}(?:{reserved_})"
    return text(rf"{but(refused)}/[\s\S]*", "an absolute path, and not the host's own")


def _container_text() -> Clause:
    refused = rf"{PARENT}|(?:\.{_END})?|{_ROOT}|{_below(_TAKEN)}"
    return text(rf"{but(refused)}[\s\S]*", "a place of its own in the container, without `..`")


HostPath = Annotated[str, AfterValidator(host_path), WithJsonSchema(_host_text())]
ContainerPath = Annotated[str, AfterValidator(container_path), WithJsonSchema(_container_text())]


class BindMount(Section):
    host_path: HostPath
    """The directory on the host; absolute."""
    container_path: ContainerPath
    """Where the trial sees it; a relative path lies below the work directory."""
    read_only: bool = False
    """Whether the trial may only read it."""
    propagation: Propagation = "rprivate"
    """Whether mounts below it pass from one side to the other."""


def distinct(mounts: tuple[BindMount, ...]) -> tuple[BindMount, ...]:
    """Refuse two mounts in one place."""
    places: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        first = places.setdefault(posixpath.normpath(mount.container_path), index)
        if first != index:
            what = f"is the place of bind_mounts[{first}] too"
            raise wrong(what, at=(index, "container_path"), hint="give each mount a place of its own")
    return mounts
