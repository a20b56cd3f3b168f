"""Chooses base image, Python and frameworks of an experiment; pure and offline."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.image.choice import Choice, Target, choices
from detbuild.image.reference import check_python, image_for
from detbuild.image.versions import release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.image.frameworks import ContextNeeds
    from detbuild.image.requirements import Requirement
    from detbuild.image.table import Base, Table


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


def resolve(
    needs: ContextNeeds,
    *,
    table: Table,
    target: Target,
    image: str | Mapping[str, str] | None = None,
) -> Resolution:
    """Resolve the image of a context.

    Args:
        needs: Imports and requirements of the context.
        table: Available bases and releases.
        target: Device, Python, driver and architecture of the image.
        image: `environment.image`: one reference, or one per device (cpu, cuda, rocm).

    Raises:
        ConfigError: The frameworks do not match each other, a Python or the driver, or `image` is invalid.
    """
    own = image_for(image, slots_per_trial=int(target.gpu))
    if own:
        check_python(own)
        return Resolution(bases=(own,), own_image=True, reason=f"{own} is the experiment's environment.image")
    combination, bases = _settled(needs, table=table, target=target)
    resolution = _resolution(combination, bases, target)
    return replace(resolution, companions=_companions(needs, table)) if resolution.frameworks else resolution


def _settled(
    needs: ContextNeeds, *, table: Table, target: Target
) -> tuple[tuple[Choice, ...], tuple[Base, ...]]:
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
) -> tuple[tuple[Choice, ...], tuple[Base, ...]]:
    candidates = [
        choices(table.frameworks[n], found, target=target, table=table) for n, found in pins.items()
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


def _pair_fits(combination: tuple[Choice, ...], table: Table) -> bool:
    versions = {choice.project: choice.release.version for choice in combination if choice.cuda}
    if versions.keys() != {"torch", "tensorflow"}:
        return True
    return any(pair.fits(versions["torch"], versions["tensorflow"]) for pair in table.gpu_pairs)


def _bases(combination: tuple[Choice, ...], *, table: Table, target: Target) -> tuple[Base, ...]:
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


def _cuda(combination: tuple[Choice, ...]) -> str:
    """Return the CUDA of the base: the newest of the frameworks, whose driver is needed anyway."""
    return max((choice.cuda for choice in combination), key=release, default="")


def _resolution(combination: tuple[Choice, ...], bases: tuple[Base, ...], target: Target) -> Resolution:
    return Resolution(
        bases=tuple(base.pinned for base in bases),
        reason=_reason(combination, bases[0], target),
        frameworks=tuple(choice.line for choice in combination if choice.line),
        builds=tuple(_build(choice) for choice in combination),
        special_builds=tuple(_build(choice) for choice in combination if choice.special),
        cuda=_cuda(combination),
        min_driver=max((choice.min_driver for choice in combination), key=release, default=""),
        warnings=tuple(choice.warning for choice in combination if choice.warning),
    )


def _build(choice: Choice) -> str:
    """Describe a build by its device."""
    return f"{choice.project} {choice.version} for {f'CUDA {choice.cuda}' if choice.cuda else 'CPU'}"


def _reason(combination: tuple[Choice, ...], base: Base, target: Target) -> str:
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


def _pair_conflict(combination: tuple[Choice, ...], table: Table) -> ConfigError:
    versions = {choice.project: choice.version for choice in combination}
    newest = table.gpu_pairs[-1]
    return ConfigError(
        f"torch {versions['torch']} and tensorflow {versions['tensorflow']} pin different CUDA packages, "
        "so both cannot use the GPU in one image",
        hint=f"in requirements.txt, require torch>={newest.torch[0]} and tensorflow>={newest.tensorflow[0]}, "
        "or tensorflow-cpu instead of tensorflow",
    )


def _no_python(combination: tuple[Choice, ...]) -> ConfigError:
    spans = " and ".join(
        f"{c.project} {c.version} has wheels for Python {c.release.python[0]} to {c.release.python[1]}"
        for c in combination
    )
    return ConfigError(
        f"no base image fits: {spans}",
        hint="require other versions in requirements.txt, or set environment.image to your own image",
    )
