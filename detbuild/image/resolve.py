"""Chooses base image, Python and frameworks of an experiment: what its code needs and its driver runs.

All of it is pure and offline, but for `bootstrap`: it runs the script that makes a base image of this host's
Debian packages, for an engine that can pull none.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError, EngineError
from detbuild.image.requirements import release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from detbuild.image.needs import ContextNeeds
    from detbuild.image.requirements import Requirement
    from detbuild.image.table import Base, Framework, FrameworkRelease, Table

# Options of `docker import`: a root file system has no image configuration.
IMPORT_CHANGES: Final = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    'CMD ["python3"]',
)
_BOOTSTRAP: Final = "bootstrap.sh"
_TIMEOUT: Final = 900  # seconds; half a minute is usual
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:\[[0-9A-Fa-f:]+\]|{_LABEL}(?:\.{_LABEL})*)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
_OLDEST = (3, 10)
_DETERMINED = re.compile(r"(^|/)determinedai/environments(-dev)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Contents of an image. The first of `bases` is best; others are used if it is not available."""

    bases: tuple[str, ...]
    reason: str  # one sentence, for users
    own_image: bool = False  # only requirements, harness and context are added
    frameworks: tuple[str, ...] = ()  # lines for pip: "torch==2.13.0"
    companions: tuple[str, ...] = ()  # more lines for the same step: "numpy"
    builds: tuple[str, ...] = ()  # "torch 2.13.0 for CPU", for labels and caches
    special_builds: tuple[str, ...] = ()  # those that the default index lacks
    cuda: str = ""
    min_driver: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of an image."""

    gpu: bool
    python: str  # minor version of the submitting host: "3.11"
    machine: str  # "x86_64"
    driver: str | None = None  # of NVIDIA; None: unknown


def resolve(
    needs: ContextNeeds,
    *,
    table: Table,
    target: Target,
    image: str | None = None,
) -> Resolution:
    """Resolve the image of a context.

    Args:
        needs: Imports and requirements of the context.
        table: Available bases and releases.
        target: Device, Python, driver and architecture of the image.
        image: The user's own image for the device, from `environment.image`.

    Raises:
        ConfigError: The frameworks do not match each other, a Python or the driver, or `image` is invalid.
    """
    if image:
        check_python(check_reference(image))
        reason = f"{image} is the experiment's environment.image"
        return Resolution(bases=(image,), own_image=True, reason=reason)
    combination, bases = _settled(needs, table=table, target=target)
    resolution = _resolution(combination, bases, target)
    return replace(resolution, companions=_companions(needs, table)) if resolution.frameworks else resolution


def _settled(
    needs: ContextNeeds, *, table: Table, target: Target
) -> tuple[tuple[_Choice, ...], tuple[Base, ...]]:
    """Return a combination whose markers were evaluated with the Python of its own bases."""
    first_error: ConfigError | None = None
    pythons = {base.python for base in table.bases} - {target.python}
    for python in (target.python, *sorted(pythons, key=lambda python: _distance(python, target.python))):
        pins = _pins(needs, python, target)
        try:
            combination, bases = _first_fit(pins, table=table, target=target)
        except ConfigError as error:
            first_error = first_error or error
            continue
        same = tuple(base for base in bases if _pins(needs, base.python, target) == pins)
        if same:
            return combination, same
        first_error = first_error or _no_python(combination)
    assert first_error is not None
    raise first_error


def _pins(needs: ContextNeeds, python: str, target: Target) -> dict[str, tuple[Requirement, ...]]:
    names = sorted(needs.frameworks, reverse=True)
    return {name: needs.pins(name, python=python, machine=target.machine) for name in names}


def _first_fit(
    pins: Mapping[str, tuple[Requirement, ...]], *, table: Table, target: Target
) -> tuple[tuple[_Choice, ...], tuple[Base, ...]]:
    candidates = [
        _choices(table.frameworks[n], found, target=target, table=table) for n, found in pins.items()
    ]
    first_error: ConfigError | None = None
    for combination in itertools.product(*candidates):
        if not _pair_fits(combination, table):
            first_error = first_error or _pair_conflict(combination, table)
        elif bases := _bases(combination, table=table, target=target):
            return combination, bases
        else:
            first_error = first_error or _no_python(combination)
    assert first_error is not None
    raise first_error


def _pair_fits(combination: tuple[_Choice, ...], table: Table) -> bool:
    versions = {choice.project: choice.release.version for choice in combination if choice.cuda}
    if versions.keys() != {"torch", "tensorflow"}:
        return True
    return any(pair.fits(versions["torch"], versions["tensorflow"]) for pair in table.gpu_pairs)


def _bases(combination: tuple[_Choice, ...], *, table: Table, target: Target) -> tuple[Base, ...]:
    """Return the bases for a combination: those of registries first, nearest Python first."""
    cuda = _cuda(combination)
    fitting = [
        base
        for base in table.bases
        if target.machine in base.architectures
        and (base.local or base.cuda == cuda)
        and all(choice.release.supports(base.python) for choice in combination)
    ]
    return tuple(sorted(fitting, key=lambda base: (base.local, _distance(base.python, target.python))))


def _distance(python: str, host: str) -> tuple[int, int]:
    steps = release(python)[1] - release(host)[1]
    return abs(steps), steps


def _cuda(combination: tuple[_Choice, ...]) -> str:
    """Return the CUDA of the base: the newest of the frameworks, whose driver is needed anyway."""
    return max((choice.cuda for choice in combination), key=release, default="")


def _resolution(combination: tuple[_Choice, ...], bases: tuple[Base, ...], target: Target) -> Resolution:
    return Resolution(
        bases=tuple(base.pinned for base in bases),
        reason=_reason(combination, bases[0], target),
        frameworks=tuple(choice.line for choice in combination if choice.line),
        builds=tuple(_described_build(choice) for choice in combination),
        special_builds=tuple(_described_build(choice) for choice in combination if choice.special),
        cuda=_cuda(combination),
        min_driver=max((choice.min_driver for choice in combination), key=release, default=""),
        warnings=tuple(choice.warning for choice in combination if choice.warning),
    )


def _described_build(choice: _Choice) -> str:
    """Describe a build by its device."""
    return f"{choice.project} {choice.version} for {f'CUDA {choice.cuda}' if choice.cuda else 'CPU'}"


def _reason(combination: tuple[_Choice, ...], base: Base, target: Target) -> str:
    python = (
        "as on this host" if base.python == target.python else f"the nearest to this host's {target.python}"
    )
    if not combination:
        return f"the context imports no framework; Python {base.python}, {python}"
    device = "GPUs are requested" if target.gpu else "slots_per_trial is 0"
    names = [
        f"{c.project} {c.version} ({c.origin}) for {f'CUDA {c.cuda}' if c.cuda else 'CPU'}"
        for c in combination
    ]
    return f"{' and '.join(names)}, since {device}; Python {base.python}, {python}"


def _companions(needs: ContextNeeds, table: Table) -> tuple[str, ...]:
    brought = {project for name in needs.frameworks for project in table.frameworks[name].brings}
    return tuple(sorted(brought | needs.companions))


def _pair_conflict(combination: tuple[_Choice, ...], table: Table) -> ConfigError:
    versions = {choice.project: choice.version for choice in combination}
    newest = table.gpu_pairs[-1]
    return ConfigError(
        f"torch {versions['torch']} and tensorflow {versions['tensorflow']} pin different CUDA packages, "
        "so both cannot use the GPU in one image",
        hint=f"in requirements.txt, require torch>={newest.torch[0]} and tensorflow>={newest.tensorflow[0]}, "
        "or tensorflow-cpu instead of tensorflow",
    )


def _no_python(combination: tuple[_Choice, ...]) -> ConfigError:
    spans = " and ".join(
        f"{c.project} {c.version} has wheels for Python {c.release.python[0]} to {c.release.python[1]}"
        for c in combination
    )
    return ConfigError(
        f"no base image fits: {spans}",
        hint="require other versions in requirements.txt, or set environment.image to your own image",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
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


def _choices(
    framework: Framework, pins: tuple[Requirement, ...], *, target: Target, table: Table
) -> tuple[_Choice, ...]:
    """Return every release that the pins allow and the driver can run, best first.

    Raises:
        ConfigError: The driver is too old for all of them, or the pins contradict each other.
    """
    project = _project(framework, pins, target)
    versions = tuple(_versions(framework, pins, table))
    fitting = []
    for version in versions:
        row = framework.nearest(version.number)
        build = _fitting_build(row, version, project=project, target=target, table=table)
        if build is not None:
            fitting.append(_choice(row, version, project=project, build=build, table=table))
    if not fitting:
        raise _driver_too_old(framework, versions[0].number, target.driver or "")
    return tuple(fitting)


def _choice(row: FrameworkRelease, version: _Version, *, project: str, build: str, table: Table) -> _Choice:
    other = table.builds.get(build)
    cuda = other.cuda if other else row.cuda
    # A CUDA build other than the default is named, so that pip cannot choose another. The CPU build is not:
    # an index of the host may have it under the plain version.
    local = f"+{build}" if cuda and other and "+" not in version.pin else ""
    extra = "[and-cuda]" if cuda and project == "tensorflow" else ""
    return _Choice(
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


def _fitting_build(
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


def choose_base(resolution: Resolution, is_local: Callable[[str], bool]) -> str:
    """Return the first base that the engine has, else the one to pull."""
    return next((base for base in resolution.bases if is_local(base)), resolution.bases[0])


def can_bootstrap(resolution: Resolution, table: Table, tag: str) -> bool:
    """Whether a base of that tag, built on this host, is suitable."""
    base = table.base(tag)
    return base is not None and base.local and tag in resolution.bases


def bootstrap_tag(images: Path) -> str:
    """Return the tag of the base that this host can build from its own packages.

    Raises:
        EngineError: It cannot build one.
    """
    return _script(images, "--tag").strip()


def bootstrap(images: Path, rootfs_tar: Path) -> None:
    """Write a root file system for `Engine.import_image`.

    Raises:
        EngineError: This host is not Debian, the caller is not root, or no mirror answers.
    """
    _script(images, str(rootfs_tar))


def _script(images: Path, argument: str) -> str:
    command = ["sh", str(images / _BOOTSTRAP), argument]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    except subprocess.CalledProcessError as error:
        output = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise _failed(output[-1].removeprefix("bootstrap: ")) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    return done.stdout


def _failed(why: str) -> EngineError:
    return EngineError(
        f"no base image could be made from Debian packages: {why}",
        hint="load one with `docker load`, or set environment.image to an existing image",
    )


def check_reference(reference: str) -> str:
    """Return the reference as it is.

    Raises:
        ConfigError: It is not of the form `[host[:port]/]name[:tag][@sha256:digest]`.
    """
    if _REFERENCE.fullmatch(reference):
        return reference
    hint = "write it as [host[:port]/]name[:tag][@sha256:digest], e.g. python:3.11-slim"
    if _REFERENCE.fullmatch(reference.lower()):
        hint = f"use lower case: {reference.lower()}"
    raise ConfigError(f"environment.image: {reference!r} is not a valid image reference", hint=hint)


def check_python(reference: str) -> None:
    """Reject an image of Determined whose Python is too old.

    Raises:
        ConfigError: Its tag implies a Python before 3.10.
    """
    repository, _, tag = reference.partition("@")[0].rpartition(":")
    named = _DETERMINED.search(repository)
    version = _python_of(tag) if named else None
    if version is not None and version < _OLDEST:
        named_version = re.search(r"\bpy-(\d+\.\d+)", tag)
        python = f"Python {named_version[1]}" if named_version else "a Python before 3.10"
        raise ConfigError(
            f"environment.image: {reference} is an image of Determined with {python}; "
            "detbuild needs 3.10 or newer",
            hint="remove environment.image, so that detbuild chooses a base for the context's frameworks",
        )


def _python_of(tag: str) -> tuple[int, int] | None:
    """Return the Python of an image of Determined, by its tag: explicit, or implied by its framework."""
    if python := re.search(r"\bpy-(\d+)\.(\d+)", tag):
        return int(python[1]), int(python[2])
    if torch := re.search(r"\bpytorch-(\d+)\.", tag):
        return (3, 9) if int(torch[1]) < 2 else (3, 10)  # noqa: PLR2004
    if tensorflow := re.search(r"\btf-(\d+)\.(\d+)", tag):
        return (3, 8) if (int(tensorflow[1]), int(tensorflow[2])) <= (2, 8) else None
    return None
