"""Metrics of many batches: kept as they come, and reduced only when somebody asks.

What is on a GPU stays there until then, for asking it for a number makes the CPU wait. A number in the CPU's
own memory is taken at once: that is cheaper than keeping its tensor, and no later batch can change it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from determined._errors import InvalidTrialError
from determined._metric_values import LeftOut, UnusableError, attempted, kind_of
from determined.pytorch._reducers import Reducer

if TYPE_CHECKING:
    from determined.pytorch._types import Untyped

Values = dict[str, list[Any]]
Kinds = dict[str, torch.dtype | None]  # of columns that hold the numbers of tensors of one type
_Tensor = torch.Tensor  # found faster, in every batch
_NUMBERS = frozenset({float, int, bool})
_COMBINE: dict[Reducer, Callable[[torch.Tensor], torch.Tensor]] = {
    Reducer.SUM: torch.sum,
    Reducer.MAX: torch.max,
    Reducer.MIN: torch.min,
}


class Closed(NamedTuple):
    """A window that has ended, after `end` batches of the trial."""

    end: int
    columns: Values
    kinds: Kinds
    batches: int


class Mean(NamedTuple):
    """Of some batches; None where none of them had a value."""

    value: float | None
    batches: int


class Window:
    """The metrics of the batches since the last report.

    `add` takes what the trial returned for a batch, in a microsecond or two: no device is waited for.

    Args:
        method: of the trial, which returns the metrics.
        place: where it is defined, for errors.
        take_numbers: tensors with one number are in the CPU's memory, and nobody will ask for them as arrays.
    """

    def __init__(self, method: str, *, take_numbers: bool, place: str = "") -> None:
        self._method, self._take_numbers, self._place = method, take_numbers, place
        self.columns: Values = {}
        self.kinds: Kinds = {}
        self.count = 0
        self._closed: list[tuple[int, Values, Kinds, int]] = []
        self.add: Callable[[object], None] = self._add_numbers if take_numbers else self._add_any

    def _add_numbers(self, metrics: Any) -> None:  # noqa: ANN401  (whatever the trial returned)
        """What `_add_any` does, for what nearly every trial returns. Called for every batch."""
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
        except (AttributeError, KeyError, RuntimeError, TypeError):  # no dict; another name; not one number
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
        """What `add` does, for what it does not expect."""
        metrics = as_metrics(outcome, self._method, self._place)
        if not self.count:
            self.columns, self.kinds = {key: [] for key in metrics}, dict.fromkeys(metrics)
        if metrics.keys() != self.columns.keys():
            self._refuse(metrics)
        for key, value in metrics.items():
            self.columns[key].append(self._taken(key, value))
        self.count += 1

    def _taken(self, key: str, value: Any) -> Any:  # noqa: ANN401  (whatever the trial returned)
        """Something that keeps no graph alive and does not change."""
        if not isinstance(value, _Tensor):
            if value is not None:
                self._loosen(key)
            return value
        if self._take_numbers and type(value) is _Tensor and value.layout is torch.strided:
            if value.numel() == 1:
                return self._number(key, value)
            self.add, self._take_numbers = self._add_any, False  # trying again in every batch would be slow
        self._loosen(key)
        # what carries a gradient was just computed; the next batch may change others in place
        return value.detach() if value.requires_grad else value.clone()

    def _number(self, key: str, value: torch.Tensor) -> Any:  # noqa: ANN401  (a number of Python or numpy)
        """A tensor's only number; of which type it was is kept once for the whole column."""
        column = self.columns[key]
        if all(each is None for each in column):
            self.kinds[key] = value.dtype
        if self.kinds[key] is value.dtype:
            return value.item()
        self._loosen(key)
        return typed(value.item(), value.dtype)

    def _loosen(self, key: str) -> None:
        """Values of several types come together: let each have its own."""
        kind, self.kinds[key] = self.kinds[key], None
        if kind is not None:
            column = self.columns[key]
            column[:] = [value if value is None else typed(value, kind) for value in column]

    def close(self, end: int) -> None:
        """Begin again after `end` batches of the trial; what there was until then is kept for `take`."""
        self._closed.append((end, self.columns, self.kinds, self.count))
        self.columns, self.count = {key: [] for key in self.columns}, 0  # most likely the same ones
        self.kinds = dict(self.kinds)

    def take(self) -> list[Closed]:
        """The windows that were closed since the last call."""
        taken, self._closed = self._closed, []
        return [Closed(*one) for one in taken]

    def _refuse(self, metrics: Mapping[str, object]) -> None:
        raise InvalidTrialError(
            f"{_at(self._place)}{self._method} returned the metrics {_names(metrics)}, "
            f"and {_names(self.columns)} before",
            hint=f"return the same metrics from {self._method} for every batch",
        )


def rows(columns: Values, batches: int) -> list[dict[str, object]]:
    """One dict per batch, tensors as numpy arrays: what callbacks are given."""
    arrays = {key: [_as_array(value) for value in values] for key, values in columns.items()}
    return [{key: values[row] for key, values in arrays.items()} for row in range(batches)]


def fetch(windows: Iterable[Closed]) -> None:
    """Replace single numbers on a device by their values; one transfer, or one for each kind of number."""
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
    """What a trial's method, defined at this place, returned, as a dict.

    Raises:
        InvalidTrialError: it is neither a dict nor one tensor.
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


def training_means(window: Closed, left_out: LeftOut) -> dict[str, Mean]:
    """The unweighted mean over the batches that have a value, to the last digit that Determined gives."""
    return _each(window.columns, window.kinds, left_out, lambda _: _mean)


def reduce_validation(
    columns: Values, kinds: Kinds, reducers: Mapping[str, Reducer], left_out: LeftOut
) -> dict[str, Mean]:
    """One number per metric."""
    return _each(columns, kinds, left_out, lambda key: partial(_reduced, reducer=reducers[key]))


def _each(
    columns: Values, kinds: Kinds, left_out: LeftOut, reduction: Callable[[str], Callable[[Any], float]]
) -> dict[str, Mean]:
    """Reduce every column; one that cannot be reduced is named, and has no value."""
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


def typed(value: float, kind: torch.dtype) -> object:
    """A number as numpy has it, which is how Determined averages it; unchanged without numpy."""
    numpy_kind = _numpy_kind(kind)
    return value if numpy_kind is None else numpy_kind.type(value)


def _column(values: list[Any], kind: torch.dtype | None, *, whole: bool) -> Any:  # noqa: ANN401  (numpy may be absent)
    """The values of a metric as Determined hands them to numpy.

    Where some batches had none they are objects, which numpy adds up in another order.
    """
    numpy = _numpy()
    if numpy is None or len(values) < 2:  # noqa: PLR2004  (there is nothing to add up)
        return values
    if whole:
        return values if kind is None else numpy.array(values, dtype=_numpy_kind(kind))
    if kind is None and not all(isinstance(value, numbers.Real) for value in values):
        return values
    objects = numpy.empty(len(values), dtype=object)
    objects[:] = values if kind is None else [typed(value, kind) for value in values]
    return objects


@cache
def _numpy() -> Any:  # noqa: ANN401  (numpy may be absent)
    return importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None


@cache
def _numpy_kind(kind: torch.dtype) -> Any:  # noqa: ANN401  (numpy may be absent)
    """Numpy's name of a type; of those that numpy does not have, the widest."""
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
        return float(_COMBINE[reducer](torch.cat([_tensor(value).reshape(-1) for value in values])))
    with _numpy().errstate(all="ignore"):
        return _float(getattr(_numpy(), reducer.name.lower())(array))


def _array(values: Any) -> Any:  # noqa: ANN401  (as above)
    """The values as one array of numpy, which reduces them as it does for Determined; None where that fails.

    Raises:
        UnusableError: they are no numbers.
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
    except ValueError:  # of several shapes: each has a mean of its own
        return None
    if array.dtype.kind not in "fiubO":
        raise UnusableError(f"it is a {kind_of(values[0])} of type {array.dtype}, not a number")
    return array


def _converted(value: Untyped) -> Untyped:
    """A value that numpy may look at."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return tensor.numpy() if _numpy_has(tensor.dtype) else tensor.double().numpy()
    _check_kind(value)
    return value


def _check_kind(value: object) -> None:
    if not (isinstance(value, (numbers.Number, list, tuple)) or hasattr(value, "__array__")):
        raise UnusableError(f"it is a {kind_of(value)}, not a number")


def _numpy_has(kind: torch.dtype) -> bool:
    return kind is torch.float64 or _numpy_kind(kind) != _numpy().dtype("float64")


def _float(value: Untyped) -> float:
    if (isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)) or not hasattr(
        value, "__float__"
    ):
        raise UnusableError(f"its mean is a {kind_of(value)}, not a number")
    return float(value)


def _tensor(value: Untyped) -> torch.Tensor:
    """As float64 on the CPU: numbers of any size and kind can be averaged there."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64)
    _check_kind(value)
    return torch.as_tensor(value, dtype=torch.float64)


def _as_array(value: object) -> object:
    """A tensor as an array of numpy, where there is one."""
    if not isinstance(value, torch.Tensor):
        return value
    try:
        return value.detach().cpu().numpy()
    except (TypeError, RuntimeError):
        return value.detach()


def _names(metrics: Iterable[str]) -> str:
    return ", ".join(sorted(metrics)) or "nothing"
