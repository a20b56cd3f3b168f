"""Chooses version and build of a framework: what the requirements allow and the driver can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.image.versions import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.image.requirements import Requirement
    from detbuild.image.table import Framework, FrameworkRelease, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of an image."""

    gpu: bool
    python: str  # minor version of the submitting host: "3.11"
    machine: str  # "x86_64"
    driver: str | None = None  # of NVIDIA; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen version and build of a framework."""

    project: str  # "torch", "tensorflow", "tensorflow-cpu"
    version: str
    release: FrameworkRelease  # the row of the table that applies
    line: str  # for pip; "" if the user's own requirements install it
    build: str  # "cpu", "cu126"; "" is the default one
    special: bool  # the default index lacks that build
    cuda: str  # "13.0"; "" without CUDA
    min_driver: str
    origin: str  # reason for this version, for users
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    number: str
    pin: str  # version specifier for pip; "" for none
    origin: str
    warning: str = ""


def choices(
    framework: Framework, pins: tuple[Requirement, ...], *, target: Target, table: Table
) -> tuple[Choice, ...]:
    """Return every release that the pins allow and the driver can run, best first.

    Raises:
        ConfigError: The driver is too old for all of them, or the pins contradict each other.
    """
    project = _project(framework, pins, target)
    versions = tuple(_versions(framework, pins, table))
    fitting = []
    for version in versions:
        row = framework.nearest(version.number)
        build = _build(row, version, project=project, target=target, table=table)
        if build is not None:
            fitting.append(_choice(row, version, project=project, build=build, table=table))
    if not fitting:
        raise _driver_too_old(framework, versions[0].number, target.driver or "")
    return tuple(fitting)


def _choice(row: FrameworkRelease, version: _Version, *, project: str, build: str, table: Table) -> Choice:
    other = table.builds.get(build)
    cuda = other.cuda if other else row.cuda
    # A CUDA build other than the default is named, so that pip cannot choose another. The CPU build is not:
    # an index of the host may have it under the plain version.
    local = f"+{build}" if cuda and other and "+" not in version.pin else ""
    extra = "[and-cuda]" if cuda and project == "tensorflow" else ""
    return Choice(
        project=project,
        version=version.number,
        release=row,
        line=f"{project}{extra}{version.pin}{local}" if version.pin else "",
        build=build,
        special=build in row.builds,
        cuda=".".join(cuda.split(".")[:2]),
        min_driver=(other.min_driver if other else row.min_driver) if cuda else "",
        origin=version.origin,
        warning=version.warning,
    )


def _project(framework: Framework, pins: tuple[Requirement, ...], target: Target) -> str:
    named = {pin.name for pin in pins}
    if framework.name != "tensorflow" or "tensorflow" in named:
        return framework.name
    slim = "tensorflow-cpu" in named or (not target.gpu and target.machine == "x86_64")
    return "tensorflow-cpu" if slim else "tensorflow"


def _versions(framework: Framework, pins: tuple[Requirement, ...], table: Table) -> Iterator[_Version]:
    """Yield candidates, best first, at least one: pip decides about versions outside the table."""
    specifiers = [specifier for pin in pins for specifier in pin.specifiers or ()]
    exact = [s.version for s in specifiers if s.operator in {"==", "==="} and not s.version.endswith(".*")]
    if any(pin.direct for pin in pins):
        number = exact[0] if exact else framework.default
        yield _Version(number, "", "from a URL in requirements.txt")
    elif exact:
        fitting = [version for version in exact if all(pin.allows(version) for pin in pins)]
        if not fitting:
            raise _contradiction(pins)
        number = fitting[0]
        # A build that no known index has must come from an index in requirements.txt.
        local = number.partition("+")[2]
        pin = f"=={number}" if not local or local in table.builds else ""
        yield _Version(number, pin, "requirements.txt", _unknown(framework, number))
    else:
        origin = "requirements.txt" if specifiers else "default"
        known = [v for v in framework.by_preference if all(pin.allows(v) for pin in pins)]
        yield from (_Version(version, f"=={version}", origin) for version in known)
        if not known:
            yield _unknown_range(framework, ",".join(map(str, specifiers)))


def _contradiction(pins: tuple[Requirement, ...]) -> ConfigError:
    versions = [f"{pin.name}{pin.specifiers} ({pin.line.place})" for pin in pins if pin.specifiers]
    return ConfigError(
        f"the requirements contradict each other: {', '.join(versions)}",
        hint="remove or loosen one of them",
    )


def _unknown(framework: Framework, version: str) -> str:
    row = framework.nearest(version)
    if framework.knows(version):
        return ""
    return f"{framework.name} {version} is not in detbuild's table; treated like {row.version}"


def _unknown_range(framework: Framework, specifiers: str) -> _Version:
    rows = framework.releases
    number = rows[0].version if "<" in specifiers else rows[-1].version
    warning = f"detbuild's table has no {framework.name}{specifiers}; treated like {number}"
    return _Version(number, specifiers, "requirements.txt", warning)


def _build(
    row: FrameworkRelease, version: _Version, *, project: str, target: Target, table: Table
) -> str | None:
    """Return the name of the build; None if the driver can run none."""
    pinned = version.number.partition("+")[2]
    if pinned in table.builds:
        return pinned
    if not target.gpu or project == "tensorflow-cpu":
        return "cpu"
    if target.driver is None or release(target.driver) >= release(row.min_driver):
        return ""
    builds = {name: table.builds[name] for name in row.builds if table.builds[name].cuda}
    fitting = [name for name, build in builds.items() if release(target.driver) >= release(build.min_driver)]
    return max(fitting, key=lambda name: release(builds[name].cuda), default=None)


def _driver_too_old(framework: Framework, version: str, driver: str) -> ConfigError:
    needed = framework.nearest(version).min_driver
    older = [row.version for row in framework.releases if release(row.min_driver) <= release(driver)]
    instead = f", or require {framework.name}=={older[-1]} in requirements.txt" if older else ""
    return ConfigError(
        f"{framework.name} {version} needs NVIDIA driver {needed} or newer; this host has {driver}",
        hint=f"update the driver{instead}",
    )
