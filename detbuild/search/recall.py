"""Compares what a search decides with what it had decided before a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeGuard

from detbuild.decisions import to_json
from detbuild.errors import SearchError

if TYPE_CHECKING:
    from detbuild.decisions import Action, SearchEvent

# Powers differ in the last digit from one C library to another: a restart may come after an upgrade.
_TOLERANCE: Final = 1e-12


def check_same(decided: Sequence[Action], recorded: Sequence[Action], event: SearchEvent) -> None:
    """Raise SearchError when the two differ."""
    ours, theirs = [*map(to_json, decided)], [*map(to_json, recorded)]
    if equal(ours, theirs):
        return
    raise SearchError(
        f"the search cannot be continued: after {to_json(event)} its journal says {theirs}, "
        f"and by its config it would be {ours}",
        hint="put back the experiment's config and the version of detbuild that it was started with",
    )


def equal(one: object, other: object) -> bool:
    """Equal as JSON is, but for the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))
