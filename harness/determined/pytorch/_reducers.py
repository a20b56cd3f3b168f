"""Reduction of per-batch metrics to one value, built-in and custom."""

from __future__ import annotations

import abc
import enum
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from determined._contract.errors import InvalidTrialError
from determined._run.metric_values import LeftOut, UnusableError, attempted, kind_of

if TYPE_CHECKING:
    from determined._run.processes import DistributedContext


class Reducer(enum.Enum):
    """How the values of one metric over all validation batches are reduced."""

    AVG = 1
    SUM = 2
    MAX = 3
    MIN = 4


class MetricReducer(abc.ABC):
    """A custom metric reduction. Update it in `train_batch` or `evaluate_batch`."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Clear the state: a new window of batches begins."""

    @abc.abstractmethod
    def per_slot_reduce(self) -> object:
        """Return what this process accumulated, as an object that can be pickled."""

    @abc.abstractmethod
    def cross_slot_reduce(self, per_slot_metrics: list[object]) -> object:
        """Combine the results of all processes: one value, or a dict if it was wrapped without a name."""


class FunctionReducer(MetricReducer):
    """A function as a reducer: it receives the values passed to `update`, in batch order."""

    def __init__(self, function: Callable[[list[object]], object]) -> None:
        self._function = function
        self._values: list[object] = []

    def update(self, value: object) -> None:
        self._values.append(value)

    def reset(self) -> None:
        self._values = []

    def per_slot_reduce(self) -> list[object]:
        return self._values

    def cross_slot_reduce(self, per_slot_metrics: list[object]) -> object:
        slots = [values for values in per_slot_metrics if isinstance(values, list)]
        longest = max(map(len, slots), default=0)
        return self._function([values[i] for i in range(longest) for values in slots if i < len(values)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrapped:
    reducer: MetricReducer
    name: str | None
    for_training: bool
    for_validation: bool

    def metrics(self, distributed: DistributedContext, left_out: LeftOut) -> dict[str, object]:
        """Reduce over all processes."""
        gathered = self._gathered(distributed)
        if isinstance(gathered, UnusableError):
            left_out.name(self._label, gathered)
            return {}
        result = self.reducer.cross_slot_reduce(gathered)
        if isinstance(result, Mapping) == (self.name is None):
            return left_out.written(result if isinstance(result, Mapping) else {str(self.name): result})
        left_out.name(self._label, self._misfit(result))
        return {}

    def _misfit(self, result: object) -> str:
        if self.name is not None:
            return f"it returns a dict but was wrapped as {self.name!r}: remove name= from wrap_reducer"
        return f"it returns a {kind_of(result)} but was wrapped without a name: pass name= to wrap_reducer"

    @property
    def _label(self) -> str:
        return self.name or type(self.reducer).__name__

    def _gathered(self, distributed: DistributedContext) -> list[Any] | UnusableError:
        """Gather the results of all processes; if one fails to pickle, all of them get the error."""
        own = self.reducer.per_slot_reduce()
        if distributed.size == 1:
            return [own]
        try:
            sent: bytes | UnusableError = attempted(lambda: pickle.dumps(own))
        except UnusableError as error:
            sent = UnusableError(f"the result of per_slot_reduce cannot be pickled: {error}")
        everyone = distributed.allgather(sent)
        failed = next((one for one in everyone if isinstance(one, UnusableError)), None)
        return failed or [pickle.loads(one) for one in everyone if isinstance(one, bytes)]  # noqa: S301  (as sent)


class Reducers:
    """The reducers of one trial, in wrapping order."""

    def __init__(self, distributed: DistributedContext) -> None:
        self._distributed = distributed
        self.left_out = LeftOut("a reducer")
        self._wrapped: list[Wrapped] = []
        self.training: tuple[Wrapped, ...] = ()

    def add(self, wrapped: Wrapped) -> None:
        if any(wrapped.reducer is other.reducer for other in self._wrapped):
            raise InvalidTrialError(
                f"the reducer {wrapped.name or type(wrapped.reducer).__name__} is wrapped twice",
                hint="call wrap_reducer once for each reducer",
            )
        self._wrapped.append(wrapped)
        self.training = tuple(one for one in self._wrapped if one.for_training)

    def of(self, *, training: bool) -> tuple[Wrapped, ...]:
        return self.training if training else tuple(one for one in self._wrapped if one.for_validation)

    def reset(self, *, training: bool) -> None:
        for one in self.of(training=training):
            one.reducer.reset()

    def metrics(self, *, training: bool) -> dict[str, object]:
        """Reduce all training or all validation metrics."""
        metrics: dict[str, object] = {}
        for one in self.of(training=training):
            metrics.update(one.metrics(self._distributed, self.left_out))
        return metrics


def reducers_of(declared: object, names: list[str]) -> dict[str, Reducer]:
    """Return the reducer of each metric from the result of `evaluation_reducer`.

    Raises:
        InvalidTrialError: it is neither a Reducer nor a dict with exactly these names.
    """
    hint = "return a Reducer, or a dict with a Reducer for each metric that evaluate_batch returns"
    if isinstance(declared, Reducer):
        return dict.fromkeys(names, declared)
    if not isinstance(declared, Mapping):
        raise InvalidTrialError(f"evaluation_reducer returned {type(declared).__name__}", hint=hint)
    if set(declared) != set(names):
        raise InvalidTrialError(
            f"evaluation_reducer names {_listed(declared)}, but evaluate_batch returned {_listed(names)}",
            hint=hint,
        )
    for name, reducer in declared.items():
        if not isinstance(reducer, Reducer):
            raise InvalidTrialError(
                f"evaluation_reducer returned {reducer!r} for {name}, not a Reducer", hint=hint
            )
    return {name: declared[name] for name in names}


def _listed(names: object) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "nothing"  # type: ignore[attr-defined]
