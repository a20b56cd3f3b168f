"""Metrics of several processes made into one: exchanged when they are reported, never for a batch."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError
from determined.pytorch._reducers import Reducer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from determined._group import Group

Metrics = dict[str, object]
_COMBINE: dict[Reducer, Callable[[Sequence[float]], float]] = {
    Reducer.SUM: sum,
    Reducer.MAX: max,
    Reducer.MIN: min,
}


def training(own: Metrics, group: Group) -> Metrics:
    """The mean over processes, which have all trained the same number of batches."""
    if group.size == 1:
        return own
    everyone = group.allgather(own)
    _same_names(everyone, "train_batch")
    return {name: _mean([metrics[name] for metrics in everyone]) for name in own}


def rows(own: list[Metrics], group: Group) -> list[Metrics]:
    """One dict a batch, each value the mean over processes where it has one."""
    if group.size == 1:
        return own
    everyone = group.allgather(own)
    return [
        {name: _mean([row[name] for row in batch]) for name in batch[0]}
        for batch in zip(*everyone, strict=False)
    ]


def validation(own: Metrics, batches: int, reducers: Mapping[str, Reducer], group: Group) -> Metrics:
    """From each process's reduced metrics those of all batches.

    Args:
        own: this process's; empty when there was no batch for it.
        batches: how many it has validated; a mean counts by them.
        reducers: of this process's metrics.
        group: the processes.
    """
    if group.size == 1:
        return own
    everyone = [each for each in group.allgather((own, batches, dict(reducers))) if each[1]]
    _same_names([metrics for metrics, _, _ in everyone], "evaluate_batch")
    if not everyone:
        return {}
    known = everyone[0][2]
    counts = [count for _, count, _ in everyone]
    return {
        name: _reduced([_number(metrics[name]) for metrics, _, _ in everyone], counts, reducer)
        for name, reducer in known.items()
    }


def _reduced(values: Sequence[float], counts: Sequence[int], reducer: Reducer) -> float:
    if reducer is Reducer.AVG:
        return sum(value * count for value, count in zip(values, counts, strict=True)) / sum(counts)
    return _COMBINE[reducer](values)


def _mean(values: Sequence[object]) -> object:
    """Of numbers and arrays; where one process has something else there is none."""
    if all(isinstance(value, Real) or hasattr(value, "__array__") for value in values):
        total = values[0]
        for value in values[1:]:
            total = total + value  # type: ignore[operator]
        return total / len(values)  # type: ignore[operator]
    return values[0] if all(value == values[0] for value in values) else None


def _number(value: object) -> float:
    assert isinstance(value, (int, float))
    return value


def _same_names(everyone: Sequence[Metrics], method: str) -> None:
    for metrics in everyone:
        if set(metrics) != set(everyone[0]):
            raise InvalidTrialError(
                f"{method} returned {', '.join(sorted(everyone[0]))} in one process and "
                f"{', '.join(sorted(metrics))} in another",
                mend=f"return the same metrics from {method} in every process",
            )
