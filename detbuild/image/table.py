"""Reads images/table.json: base images, framework releases, and which of them are compatible."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from detbuild.image.requirements import minor, release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    reference: str
    os: str  # "debian12"
    python: str  # "3.11": of the image, or of its distribution's packages
    cuda: str = ""  # "13.0"; "" for a base without CUDA
    architectures: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()  # Debian packages that Python needs
    digest: str = ""  # "sha256:..."; "" if not pinned
    local: bool = False  # built on this host from Debian packages, never pulled

    @property
    def pinned(self) -> str:
        return f"{self.reference}@{self.digest}" if self.digest else self.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build of a framework other than the default one of PyPI."""

    cuda: str  # "12.6"; "" for CPU
    min_driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkRelease:
    version: str
    python: tuple[str, str]  # oldest and newest with wheels
    cuda: str  # runtime of the default wheel
    min_driver: str
    builds: tuple[str, ...]  # names of other builds

    def supports(self, python: str) -> bool:
        return release(self.python[0]) <= release(python) <= release(self.python[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    name: str
    default: str
    brings: tuple[str, ...] = ()  # projects installed with it, since nearly all programs need them
    releases: tuple[FrameworkRelease, ...]  # oldest first

    @property
    def by_preference(self) -> tuple[str, ...]:
        """Versions: the default one, then from new to old."""
        return tuple(dict.fromkeys([self.default, *(row.version for row in reversed(self.releases))]))

    def nearest(self, version: str) -> FrameworkRelease:
        """Return the release of the same minor version, else the newest older one, else the oldest."""
        older = [row for row in self.releases if minor(row.version) <= minor(version)]
        return older[-1] if older else self.releases[0]

    def knows(self, version: str) -> bool:
        return minor(self.nearest(version).version) == minor(version)


@dataclass(frozen=True, slots=True)
class GpuPair:
    """Ranges of minor versions whose CUDA packages can be installed together."""

    torch: tuple[str, str]
    tensorflow: tuple[str, str]

    def fits(self, torch: str, tensorflow: str) -> bool:
        return _within(torch, self.torch) and _within(tensorflow, self.tensorflow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    bases: tuple[Base, ...]
    builds: Mapping[str, Build]
    frameworks: Mapping[str, Framework]
    gpu_pairs: tuple[GpuPair, ...]

    def base(self, reference: str) -> Base | None:
        found = (base for base in self.bases if reference in {base.reference, base.pinned})
        return next(found, None)


@cache
def load_table(images: Path) -> Table:
    raw = json.loads((images / "table.json").read_text(encoding="utf-8"))
    return Table(
        bases=tuple(_base(row) for row in raw["bases"]),
        builds={name: Build(**row) for name, row in raw["builds"].items()},
        frameworks={
            name: Framework(
                name=name,
                default=row["default"],
                brings=tuple(row["brings"]),
                releases=tuple(_release(r) for r in row["releases"]),
            )
            for name, row in raw["frameworks"].items()
        },
        gpu_pairs=tuple(
            GpuPair((row["torch"][0], row["torch"][1]), (row["tensorflow"][0], row["tensorflow"][1]))
            for row in raw["gpu_pairs"]["fit"]
        ),
    )


def _base(row: Mapping[str, object]) -> Base:
    return Base(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})  # type: ignore[arg-type]  # our own data


def _release(row: Mapping[str, object]) -> FrameworkRelease:
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    fields = FrameworkRelease.__dataclass_fields__
    return FrameworkRelease(**{key: value for key, value in facts.items() if key in fields})  # type: ignore[arg-type]  # our own data


def _within(version: str, span: tuple[str, str]) -> bool:
    return minor(span[0]) <= minor(version) <= minor(span[1])
