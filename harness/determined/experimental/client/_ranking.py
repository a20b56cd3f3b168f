"""Sorts checkpoints by a validation metric, as Determined does: those without a value come last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from determined.experimental.client._enums import CheckpointSortBy, OrderBy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from determined.experimental.client._checkpoint import Checkpoint

SortBy = str | CheckpointSortBy | None


def ordered(
    checkpoints: Iterable[Checkpoint], sort_by: SortBy, order_by: OrderBy | None, max_results: int | None
) -> list[Checkpoint]:
    """Sort checkpoints; without `sort_by` by the searcher's metric, the best first.

    Raises:
        ValueError: Only one of `sort_by` and `order_by` was given.
    """
    if (sort_by is None) != (order_by is None):
        raise ValueError("sort_by and order_by go together")
    found = list(checkpoints)
    if sort_by is CheckpointSortBy.SEARCHER_METRIC and found:
        sort_by = found[0].searcher[0]
    if sort_by is None:
        ranked = by_metric(found, None, None)
    elif isinstance(sort_by, CheckpointSortBy):
        ranked = sorted(found, key=lambda one: _field(one, sort_by), reverse=order_by is OrderBy.DESC)
    else:
        ranked = by_metric(found, sort_by, smaller_is_better=order_by is OrderBy.ASC)
    return ranked if max_results is None else ranked[:max_results]


def by_metric(
    checkpoints: Iterable[Checkpoint], metric: str | None, smaller_is_better: bool | None
) -> list[Checkpoint]:
    """Sort the best first; without `metric` by the searcher's, ignoring `smaller_is_better`."""

    def key(one: Checkpoint) -> tuple[bool, float]:
        name, smaller = one.searcher
        if metric is not None:
            name, smaller = metric, smaller if smaller_is_better is None else smaller_is_better
        value = _metric(one, name)
        return (True, 0.0) if value is None else (False, value if smaller else -value)

    return sorted(checkpoints, key=key)


def _metric(one: Checkpoint, name: str) -> float | None:
    value = one.validation_metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def _field(one: Checkpoint, sort_by: CheckpointSortBy) -> tuple[float, str]:
    match sort_by:
        case CheckpointSortBy.BATCH_NUMBER:
            return (one.steps_completed, "")
        case CheckpointSortBy.END_TIME:
            return (one.report_time.timestamp() if one.report_time else math.inf, "")
        case CheckpointSortBy.STATE:
            return (0, one.state.name)
        case _:
            return (0, one.uuid)
