"""Metrics of many batches: collected per batch, reduced at the next report, over all processes.

Tensors on a GPU stay there until then, because reading a number synchronizes with the device. A number in
CPU memory is read at once: that is cheaper than keeping its tensor, and no later batch can change it.
Processes exchange reduced metrics per report, never per batch.
"""

from __future__ import annotations

import abc
import enum
import importlib
import importlib.util
import logging
import math
import numbers
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from determined._contract.errors import InvalidTrialError
from determined._run.metric_values import LeftOut, UnusableError, attempted, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from determined._run.processes import DistributedContext, Group
    from determined.pytorch._device import Untyped

_Values = dict[str, list[Any]]
_Kinds = dict[str, torch.dtype | None]  # the dtype of columns whose numbers came from tensors of one dtype
_Tensor = torch.Tensor  # a module global is looked up faster; used in every batch
_NUMBERS = frozenset({float, int, bool})
Metrics = dict[str, object]
_LOG = logging.getLogger(__name__)


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
            f"evaluation_reducer names {_names(declared)}, but evaluate_batch returned {_names(names)}",
            hint=hint,
        )
    for name, reducer in declared.items():
        if not isinstance(reducer, Reducer):
            raise InvalidTrialError(
                f"evaluation_reducer returned {reducer!r} for {name}, not a Reducer", hint=hint
            )
    return {name: declared[name] for name in names}


_COMBINE_TENSORS: dict[Reducer, Callable[[torch.Tensor], torch.Tensor]] = {
    Reducer.SUM: torch.sum,
    Reducer.MAX: torch.max,
    Reducer.MIN: torch.min,
}


class ClosedWindow(NamedTuple):
    """A window that ended after `end` batches of the trial."""

    end: int
    columns: _Values
    kinds: _Kinds
    batches: int


class Mean(NamedTuple):
    """The mean over some batches; None if none of them had a value."""

    value: float | None
    batches: int


class Window:
    """The metrics of the batches since the last report.

    `add` takes the metrics of one batch in a microsecond or two, without synchronizing with a device.

    Args:
        method: name of the trial's method that returns the metrics.
        place: where it is defined, for errors.
        read_numbers: read one-element tensors at once: they are in CPU memory and not needed as arrays.
    """

    def __init__(self, method: str, *, read_numbers: bool, place: str = "") -> None:
        self._method, self._read_numbers, self._place = method, read_numbers, place
        self.columns: _Values = {}
        self.kinds: _Kinds = {}
        self.count = 0
        self._closed: list[tuple[int, _Values, _Kinds, int]] = []
        self.add: Callable[[object], None] = self._add_numbers if read_numbers else self._add_any

    def _add_numbers(self, metrics: Any) -> None:  # noqa: ANN401  (any result of a trial)
        """Fast path of `_add_any` for a dict of numbers and one-element tensors. Called for every batch."""
        columns, kinds = self.columns, self.kinds
        try:
            for key, value in metrics.items():
                if type(value) is _Tensor:
                    if value.dtype is not kinds[key]:
                        raise KeyError  # noqa: TRY301  (nothing is faster)
                    columns[key].append(value.item())
                else:
                    columns[key].append(value)
                    if kinds[key] is not None and value is not None:
                        raise KeyError  # noqa: TRY301  (nothing is faster)
        except (AttributeError, KeyError, RuntimeError, TypeError):  # not a dict; other name; not one number
            self._add_instead(metrics)
            return
        if len(metrics) != len(columns):
            self._add_instead(metrics)
            return
        self.count += 1

    def _add_instead(self, metrics: object) -> None:
        for values in self.columns.values():
            del values[self.count :]
        self._add_any(metrics)

    def _add_any(self, outcome: object) -> None:
        """Slow path of `add`, for any metrics."""
        metrics = as_metrics(outcome, self._method, self._place)
        if not self.count:
            self.columns, self.kinds = {key: [] for key in metrics}, dict.fromkeys(metrics)
        if metrics.keys() != self.columns.keys():
            self._raise_other_names(metrics)
        for key, value in metrics.items():
            self.columns[key].append(self._stored(key, value))
        self.count += 1

    def _stored(self, key: str, value: Any) -> Any:  # noqa: ANN401  (any result of a trial)
        """Return the value detached from its graph and safe from later in-place changes."""
        if not isinstance(value, _Tensor):
            if value is not None:
                self._loosen(key)
            return value
        if self._read_numbers and type(value) is _Tensor and value.layout is torch.strided:
            if value.numel() == 1:
                return self._number(key, value)
            self.add, self._read_numbers = self._add_any, False  # trying again in every batch would be slow
        self._loosen(key)
        # a tensor with a gradient was just computed; the next batch may change others in place
        return value.detach() if value.requires_grad else value.clone()

    def _number(self, key: str, value: torch.Tensor) -> Any:  # noqa: ANN401  (a number of Python or numpy)
        """Read a one-element tensor; its dtype is stored once for the whole column."""
        column = self.columns[key]
        if all(each is None for each in column):
            self.kinds[key] = value.dtype
        if self.kinds[key] is value.dtype:
            return value.item()
        self._loosen(key)
        return _typed(value.item(), value.dtype)

    def _loosen(self, key: str) -> None:
        """Store the dtype with each value of a column, because they differ."""
        kind, self.kinds[key] = self.kinds[key], None
        if kind is not None:
            column = self.columns[key]
            column[:] = [value if value is None else _typed(value, kind) for value in column]

    def close(self, end: int) -> None:
        """Close the window after `end` batches of the trial; `take` returns it."""
        self._closed.append((end, self.columns, self.kinds, self.count))
        self.columns, self.count = {key: [] for key in self.columns}, 0  # most likely the same ones
        self.kinds = dict(self.kinds)

    def take(self) -> list[ClosedWindow]:
        """Return the windows closed since the last call."""
        taken, self._closed = self._closed, []
        return [ClosedWindow(*one) for one in taken]

    def _raise_other_names(self, metrics: Mapping[str, object]) -> None:
        raise InvalidTrialError(
            f"{_at(self._place)}{self._method} returned the metrics {_names(metrics)}, "
            f"but {_names(self.columns)} before",
            hint=f"return the same metrics from {self._method} for every batch",
        )


def rows(columns: _Values, batches: int) -> list[dict[str, object]]:
    """Return one dict per batch, with tensors as numpy arrays, for callbacks."""
    arrays = {key: [_as_array(value) for value in values] for key, values in columns.items()}
    return [{key: values[row] for key, values in arrays.items()} for row in range(batches)]


def fetch(windows: Iterable[ClosedWindow]) -> None:
    """Replace scalar tensors on a device by their values, with one transfer per device and dtype."""
    kinds: dict[tuple[torch.device, torch.dtype], list[list[Any]]] = {}
    for one in windows:
        for key, values in one.columns.items():
            found = {(value.device, value.dtype) for value in values if _is_scalar(value)}
            if len(found) == 1 and all(value is None or _is_scalar(value) for value in values):
                kinds.setdefault(found_one := found.pop(), []).append(values)
                one.kinds[key] = found_one[1]
    for columns in kinds.values():
        there = [value for values in columns for value in values if value is not None]
        numbers_ = iter(torch.stack(there).double().tolist())
        for values in columns:
            values[:] = [value if value is None else next(numbers_) for value in values]


def _is_scalar(value: object) -> bool:
    return type(value) is _Tensor and value.dim() == 0 and value.layout is torch.strided


def as_metrics(outcome: object, method: str, place: str = "") -> dict[str, object]:
    """Return the result of a trial's method as a dict of metrics.

    Raises:
        InvalidTrialError: it is neither a dict nor, for `train_batch`, one tensor.
    """
    if isinstance(outcome, Mapping):
        return {str(key): value for key, value in outcome.items()}
    if isinstance(outcome, torch.Tensor) and method == "train_batch":
        return {"loss": outcome}
    also = ", or the loss as one tensor" if method == "train_batch" else ""
    raise InvalidTrialError(
        f"{_at(place)}{method} returned {type(outcome).__name__}, not a dict of metrics",
        hint=f"return {{name: value}} from {method}{also}",
    )


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def training_means(window: ClosedWindow, left_out: LeftOut) -> dict[str, Mean]:
    """Return the unweighted mean over the batches that have a value, bit-identical to Determined's."""
    return _each(window.columns, window.kinds, left_out, lambda _: _mean)


def reduce_validation(
    columns: _Values, kinds: _Kinds, reducers: Mapping[str, Reducer], left_out: LeftOut
) -> dict[str, Mean]:
    """Reduce each metric to one number."""
    return _each(columns, kinds, left_out, lambda key: partial(_reduced, reducer=reducers[key]))


def _each(
    columns: _Values, kinds: _Kinds, left_out: LeftOut, reduction: Callable[[str], Callable[[Any], float]]
) -> dict[str, Mean]:
    """Reduce every column; one that cannot be reduced is logged and has no value."""
    found = {}
    for key, values in columns.items():
        present = [value for value in values if value is not None]
        value = None
        try:
            if present:
                value = attempted(partial(_of_column, values, kinds.get(key), reduction(key)))
        except UnusableError as error:
            left_out.name(key, f"a {kind_of(present[0])} cannot be reduced: {error}")
        found[key] = Mean(value, 0 if value is None else len(present))
    return found


def _of_column(values: list[Any], kind: torch.dtype | None, reduce: Callable[[list[Any]], float]) -> float:
    present = [value for value in values if value is not None]
    return reduce(_column(present, kind, whole=len(present) == len(values)))


def _typed(value: float, kind: torch.dtype) -> object:
    """Return a number as a numpy scalar, as Determined averages it; unchanged without numpy."""
    numpy_kind = _numpy_kind(kind)
    return value if numpy_kind is None else numpy_kind.type(value)


def _column(values: list[Any], kind: torch.dtype | None, *, whole: bool) -> Any:  # noqa: ANN401  (numpy may be absent)
    """Return the values of a metric as Determined passes them to numpy.

    If some batches had no value it is an object array, which numpy sums in another order.
    """
    numpy = _numpy()
    if numpy is None or len(values) < 2:  # noqa: PLR2004  (there is nothing to add up)
        return values
    if whole:
        return values if kind is None else numpy.array(values, dtype=_numpy_kind(kind))
    if kind is None and not all(isinstance(value, numbers.Real) for value in values):
        return values
    objects = numpy.empty(len(values), dtype=object)
    objects[:] = values if kind is None else [_typed(value, kind) for value in values]
    return objects


@cache
def _numpy() -> Any:  # noqa: ANN401  (numpy may be absent)
    return importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None


@cache
def _numpy_kind(kind: torch.dtype) -> Any:  # noqa: ANN401  (numpy may be absent)
    """Return the numpy dtype of a torch dtype; float64 if numpy has no such type."""
    if _numpy() is None:
        return None
    try:
        return torch.zeros((), dtype=kind).numpy().dtype
    except (TypeError, RuntimeError):
        return _numpy().dtype("float64")


def _mean(values: Any) -> float:  # noqa: ANN401  (a list, or an array of numpy)
    if len(values) == 1 and type(values[0]) in _NUMBERS:
        return float(values[0])
    array = _array(values)
    if array is None:
        return float(torch.stack([_tensor(value).mean() for value in values]).mean())
    with _numpy().errstate(all="ignore"):
        return _float(_numpy().mean(array.reshape(-1)) if array.size else math.nan)


def _reduced(values: Any, reducer: Reducer) -> float:  # noqa: ANN401  (as above)
    if reducer is Reducer.AVG:
        array = _array(values)
        if array is None or not array.size:
            return _mean(values)
        with _numpy().errstate(all="ignore"):
            return _float(_numpy().average(array))
    array = _array(values)
    if array is None:
        return float(_COMBINE_TENSORS[reducer](torch.cat([_tensor(value).reshape(-1) for value in values])))
    with _numpy().errstate(all="ignore"):
        return _float(getattr(_numpy(), reducer.name.lower())(array))


def _array(values: Any) -> Any:  # noqa: ANN401  (as above)
    """Return the values as one numpy array, which is reduced as in Determined; None if shapes differ.

    Raises:
        UnusableError: they are not numbers.
    """
    numpy = _numpy()
    if numpy is None:
        return None
    try:
        array = (
            values
            if isinstance(values, numpy.ndarray)
            else numpy.array([_converted(value) for value in values])
        )
    except ValueError:  # several shapes: the mean of each is taken first
        return None
    if array.dtype.kind not in "fiubO":
        raise UnusableError(f"it is a {kind_of(values[0])} of type {array.dtype}, not a number")
    return array


def _converted(value: Untyped) -> Untyped:
    """Return a value that numpy accepts."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return tensor.numpy() if _numpy_has(tensor.dtype) else tensor.double().numpy()
    _check_kind(value)
    return value


def _check_kind(value: object) -> None:
    if not (isinstance(value, (numbers.Number, list, tuple)) or hasattr(value, "__array__")):
        raise UnusableError(f"it is of type {kind_of(value)}, not a number")


def _numpy_has(kind: torch.dtype) -> bool:
    return kind is torch.float64 or _numpy_kind(kind) != _numpy().dtype("float64")


def _float(value: Untyped) -> float:
    if (isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)) or not hasattr(
        value, "__float__"
    ):
        raise UnusableError(f"its mean is of type {kind_of(value)}, not a number")
    return float(value)


def _tensor(value: Untyped) -> torch.Tensor:
    """Return a value as a float64 tensor on the CPU, which can average any dtype."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64)
    _check_kind(value)
    return torch.as_tensor(value, dtype=torch.float64)


def _as_array(value: object) -> object:
    """Return a tensor as a numpy array, if numpy supports it."""
    if not isinstance(value, torch.Tensor):
        return value
    try:
        return value.detach().cpu().numpy()
    except (TypeError, RuntimeError):
        return value.detach()


def _names(metrics: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, metrics))) or "nothing"


_COMBINE_NUMBERS: dict[Reducer, Callable[[Sequence[float]], float]] = {
    Reducer.SUM: sum,
    Reducer.MAX: max,
    Reducer.MIN: min,
}


def mean_over_processes(own: Mapping[str, Mean], group: Group) -> Metrics:
    """Return the mean over processes, which have all trained the same number of batches."""
    if group.size == 1:
        return {name: mean.value for name, mean in own.items() if mean.batches}
    everyone = group.allgather(dict(own))
    _same_names(everyone, "train_batch")
    return {
        name: value for name in own if (value := _averaged([means[name] for means in everyone])) is not None
    }


def rows_over_processes(own: list[Metrics], group: Group) -> list[Metrics]:
    """Return one dict per batch, with the means over processes."""
    if group.size == 1:
        return own
    everyone = group.allgather(own)
    return [
        {name: _mean_value([row[name] for row in batch]) for name in batch[0]}
        for batch in zip(*everyone, strict=False)
    ]


def reduce_over_processes(
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
        if (value := _reduced_means([means[name] for means, _, _ in everyone], reducer)) is not None
    }


def _reduced_means(means: Sequence[Mean], reducer: Reducer) -> float | None:
    """Reduce over the processes that have a value; means are weighted by their batches."""
    there = [(mean.value, mean.batches) for mean in means if mean.value is not None]
    if not there:
        return None
    if reducer is Reducer.AVG:
        return sum(value * count for value, count in there) / sum(count for _, count in there)
    return _COMBINE_NUMBERS[reducer]([value for value, _ in there])


def _averaged(means: Sequence[Mean]) -> float | None:
    """Return the mean; if all processes have the same number of batches, bit-identical to a plain mean."""
    values = [mean.value for mean in means if mean.value is not None]
    if len({mean.batches for mean in means}) == 1 and values:
        return sum(values) / len(values)
    return _reduced_means(means, Reducer.AVG)


def _mean_value(values: Sequence[object]) -> object:
    """Return the mean of numbers and arrays; None if a process has another type."""
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, numbers.Real) or hasattr(value, "__array__") for value in there):
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
                f"{method} returned the metrics {_names(everyone[0])} in one process and "
                f"{_names(metrics)} in another",
                hint=f"return the same metrics from {method} in every process",
            )


class NanWatch:
    def __init__(self, method: str) -> None:
        self._method = method
        self._reported: set[str] = set()

    def check(self, metrics: Mapping[str, object], columns: Mapping[str, Sequence[Any]], end: int) -> None:
        """Warn about metrics that are NaN.

        Args:
            metrics: reduced values.
            columns: the values of each batch.
            end: batches trained when the last of them was returned.
        """
        for name, value in metrics.items():
            if value != value and isinstance(value, float) and name not in self._reported:  # noqa: PLR0124  (NaN is not)
                self._reported.add(name)
                self._report(name, columns.get(name, ()), end)

    def _report(self, name: str, values: Sequence[Any], end: int) -> None:
        first = next((index for index, value in enumerate(values) if _has_nan(value)), None)
        place = "" if first is None else f" for batch {end - len(values) + first}"
        _LOG.warning(
            "%s returned NaN for %s%s; lower the learning rate, clip gradients, or look for log(0) and 0/0 "
            "(torch.autograd.set_detect_anomaly(True) finds the operation)",
            self._method,
            name,
            place,
        )


def _has_nan(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(torch.isnan(value).any())
    return isinstance(value, float) and math.isnan(value)
