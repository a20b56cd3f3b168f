"""Ranks available checkpoints by a validation metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.store.state import Goal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.checkpoint.find import Found
    from detbuild.store.experiment_dir import Header


def goal_of(header: Header, metric: str | None = None, smaller_is_better: bool | None = None) -> Goal:  # noqa: FBT001  (None: the searcher's)
    """Return the searcher's goal, or that of another metric."""
    smaller = header.smaller_is_better if smaller_is_better is None or metric is None else smaller_is_better
    return Goal(metric or header.metric, smaller)


def best_first(found: Iterable[Found], goal: Goal) -> list[Found]:
    """Sort the complete checkpoints that have the metric, best first; ties in the order given."""
    sign = 1 if goal.smaller_is_better else -1
    valued = [
        (sign * value, one)
        for one in found
        if one.state == "COMPLETED" and one.checkpoint.validation is not None
        if (value := goal.value(one.checkpoint.validation)) is not None
    ]
    return [one for _, one in sorted(valued, key=lambda pair: pair[0])]


def best_of_trials(found: Iterable[Found], goal: Goal) -> list[Found]:
    """Return the best checkpoint of each trial, best first."""
    of_trials: dict[int, Found] = {}
    for one in best_first(found, goal):
        of_trials.setdefault(one.trial_id, one)
    return list(of_trials.values())
