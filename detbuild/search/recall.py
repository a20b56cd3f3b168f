"""Compares the actions of a replayed search with the recorded ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeGuard

from detbuild.decisions import to_json
from detbuild.errors import SearchError

if TYPE_CHECKING:
    from detbuild.decisions import Action, SearchEvent

# C libraries differ in the last digit of powers, and a restart may follow an upgrade.
_TOLERANCE: Final = 1e-12


def check_same(decided: Sequence[Action], recorded: Sequence[Action], event: SearchEvent) -> None:
    """Raise SearchError if the recorded actions differ."""
    ours, theirs = [*map(to_json, decided)], [*map(to_json, recorded)]
    if equal(ours, theirs):
        return
    raise SearchError(
        f"the search cannot be continued: after {to_json(event)} its journal has {theirs}, "
        f"but its config now gives {ours}",
        hint="restore the experiment's config and the version of detbuild that started it",
    )


def equal(one: object, other: object) -> bool:
    """Compare as JSON, ignoring the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))
