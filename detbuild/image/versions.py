"""Version numbers and requirement specifiers, as far as choosing a framework needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.IGNORECASE)
_SPECIFIER = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*([^\s,;]+)\s*")

Release = tuple[int, ...]


def release(text: str) -> Release:
    """The numbers before any letter or plus: (2, 13, 0) of "2.13.0+cpu"; () when there are none."""
    match = _RELEASE.match(text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def minor(text: str) -> Release:
    return _padded(release(text), 2)[:2]


@dataclass(frozen=True, slots=True)
class Specifier:
    """One clause such as `>=2.4`."""

    operator: str
    version: str

    def allows(self, version: str) -> bool:
        """Whether a final release fits; pre-releases and epochs are pip's business."""
        wanted, wildcard = release(self.version), self.version.endswith(".*")
        width = max(len(wanted), len(release(version)))
        mine, other = _padded(release(version), width), _padded(wanted, width)
        match self.operator:
            case "==" | "===" | "!=":
                equal = mine[: len(wanted)] == wanted if wildcard else mine == other
                return equal is (self.operator != "!=")
            case "~=":
                return mine >= other and mine[: len(wanted) - 1] == wanted[:-1]
            case "<=":
                return mine <= other
            case ">=":
                return mine >= other
            case "<":
                return mine < other
            case _:
                return mine > other

    def __str__(self) -> str:
        return self.operator + self.version


def parse_specifiers(text: str) -> tuple[Specifier, ...] | None:
    """Clauses of "(>=2.4, <3)"; None when the text is something else."""
    inner = text.strip().removeprefix("(").removesuffix(")").strip()
    clauses = [_SPECIFIER.fullmatch(part) for part in inner.split(",") if part.strip()]
    if not all(clauses):
        return None
    return tuple(Specifier(clause[1], clause[2]) for clause in clauses if clause)


def allows(specifiers: Iterable[Specifier], version: str) -> bool:
    return all(specifier.allows(version) for specifier in specifiers)


def _padded(numbers: Release, width: int) -> Release:
    return numbers + (0,) * (width - len(numbers))
