"""Reduce metrics over several processes; they are exchanged per report, never per batch."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined.pytorch._reducers import Reducer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from determined._run.processes import Group
    from determined.pytorch._metrics import Mean

Metrics = dict[str, object]
_COMBINE: dict[Reducer, Callable[[Sequence[float]], float]] = {
    Reducer.SUM: sum,
    Reducer.MAX: max,
    Reducer.MIN: min,
}


def training(own: Mapping[str, Mean], group: Group) -> Metrics:
    """Return the mean over processes, which have all trained the same number of batches."""
    if group.size == 1:
        return {name: mean.value for name, mean in own.items() if mean.batches}
    everyone = group.allgather(dict(own))
    _same_names(everyone, "train_batch")
    return {
        name: value for name in own if (value := _averaged([means[name] for means in everyone])) is not None
    }


def rows(own: list[Metrics], group: Group) -> list[Metrics]:
    """Return one dict per batch, with the means over processes."""
    if group.size == 1:
        return own
    everyone = group.allgather(own)
    return [
        {name: _mean([row[name] for row in batch]) for name in batch[0]}
        for batch in zip(*everyone, strict=False)
    ]


def validation(
    own: Mapping[str, Mean], batches: int, reducers: Mapping[str, Reducer], group: Group
) -> Metrics:
    """Combine the reduced metrics of all processes.

    Args:
        own: metrics of this process; empty if it had no batch.
        batches: number of batches that it validated.
        reducers: of its metrics.
        group: the processes.
    """
    if group.size == 1:
        return {name: mean.value for name, mean in own.items() if mean.batches}
    everyone = [each for each in group.allgather((dict(own), batches, dict(reducers))) if each[1]]
    _same_names([means for means, _, _ in everyone], "evaluate_batch")
    known = everyone[0][2] if everyone else {}
    return {
        name: value
        for name, reducer in known.items()
        if (value := _reduced([means[name] for means, _, _ in everyone], reducer)) is not None
    }


def _reduced(means: Sequence[Mean], reducer: Reducer) -> float | None:
    """Reduce over the processes that have a value; means are weighted by their batches."""
    there = [(mean.value, mean.batches) for mean in means if mean.value is not None]
    if not there:
        return None
    if reducer is Reducer.AVG:
        return sum(value * count for value, count in there) / sum(count for _, count in there)
    return _COMBINE[reducer]([value for value, _ in there])


def _averaged(means: Sequence[Mean]) -> float | None:
    """Return the mean; if all processes have the same number of batches, bit-identical to a plain mean."""
    values = [mean.value for mean in means if mean.value is not None]
    if len({mean.batches for mean in means}) == 1 and values:
        return sum(values) / len(values)
    return _reduced(means, Reducer.AVG)


def _mean(values: Sequence[object]) -> object:
    """Return the mean of numbers and arrays; None if a process has another type."""
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, Real) or hasattr(value, "__array__") for value in there):
        total = there[0]
        for value in there[1:]:
            total = total + value  # type: ignore[operator]
        return total / len(there)  # type: ignore[operator]
    first = values[0]
    return first if isinstance(first, str) and all(value == first for value in values) else None


def _same_names(everyone: Sequence[Mapping[str, object]], method: str) -> None:
    for metrics in everyone:
        if set(metrics) != set(everyone[0]):
            raise InvalidTrialError(
                f"{method} returned the metrics {', '.join(sorted(everyone[0]))} in one process and "
                f"{', '.join(sorted(metrics))} in another",
                hint=f"return the same metrics from {method} in every process",
            )
