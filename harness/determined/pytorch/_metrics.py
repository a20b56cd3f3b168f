"""Metrics of many batches: kept as they come, and reduced only when somebody asks.

What is on a GPU stays there until then, for asking it for a number makes the CPU wait. A number in the CPU's
own memory is taken at once: that is cheaper than keeping its tensor, and no later batch can change it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from determined._errors import InvalidTrialError
from determined.pytorch._reducers import Reducer

if TYPE_CHECKING:
    from determined.pytorch._types import Untyped

Values = dict[str, list[Any]]
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
    batches: int


class Window:
    """The metrics of the batches since the last report.

    `add` takes what the trial returned for a batch, in a microsecond or two: no device is waited for.

    Args:
        method: of the trial, which returns the metrics.
        take_numbers: tensors with one number are in the CPU's memory, and nobody will ask for them as arrays.
    """

    def __init__(self, method: str, *, take_numbers: bool) -> None:
        self._method, self._take_numbers = method, take_numbers
        self.columns: Values = {}
        self.count = 0
        self._closed: list[tuple[int, Values, int]] = []
        self.add: Callable[[object], None] = self._add_numbers if take_numbers else self._add_any

    def _add_numbers(self, metrics: Any) -> None:  # noqa: ANN401  (whatever the trial returned)
        """What `_add_any` does, for what nearly every trial returns. Called for every batch."""
        columns = self.columns
        try:
            for key, value in metrics.items():
                columns[key].append(value.item() if type(value) is _Tensor else value)
        except (AttributeError, KeyError, RuntimeError):  # no dict; another name; not one number
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
        metrics = as_metrics(outcome, self._method)
        if not self.count:
            self.columns = {key: [] for key in metrics}
        if metrics.keys() != self.columns.keys():
            self._refuse(metrics)
        for key, value in metrics.items():
            self.columns[key].append(self._taken(value) if isinstance(value, _Tensor) else value)
        self.count += 1

    def _taken(self, value: torch.Tensor) -> float | torch.Tensor:
        """Something that keeps no graph alive and does not change."""
        if self._take_numbers and type(value) is _Tensor and value.numel() == 1:
            return value.item()
        self.add, self._take_numbers = self._add_any, False  # trying again in every batch would be slow
        # what carries a gradient was just computed; the next batch may change others in place
        return value.detach() if value.requires_grad else value.clone()

    def close(self, end: int) -> None:
        """Begin anew after `end` batches of the trial; what there was until then is kept for `take`."""
        self._closed.append((end, self.columns, self.count))
        self.columns, self.count = {key: [] for key in self.columns}, 0  # most likely the same ones

    def take(self) -> list[Closed]:
        """The windows that were closed since the last call."""
        taken, self._closed = self._closed, []
        return [Closed(*one) for one in taken]

    def _refuse(self, metrics: Mapping[str, object]) -> None:
        raise InvalidTrialError(
            f"{self._method} returned the metrics {_names(metrics)}, and {_names(self.columns)} before",
            mend=f"return the same metrics from {self._method} for every batch",
        )


def rows(columns: Values, batches: int) -> list[dict[str, object]]:
    """One dict per batch, tensors as numpy arrays: what callbacks are given."""
    arrays = {key: [_as_array(value) for value in values] for key, values in columns.items()}
    return [{key: values[row] for key, values in arrays.items()} for row in range(batches)]


def fetch(windows: Iterable[Closed]) -> None:
    """Replace single numbers on a device by their values; one transfer, or one for each kind of number."""
    kinds: dict[tuple[torch.device, torch.dtype], list[list[Any]]] = {}
    for values in (values for one in windows for values in one.columns.values()):
        if all(type(value) is _Tensor and value.dim() == 0 for value in values):
            kinds.setdefault((values[0].device, values[0].dtype), []).append(values)
    for columns in kinds.values():
        found = iter(torch.stack([value for values in columns for value in values]).double().tolist())
        for values in columns:
            values[:] = islice(found, len(values))


def as_metrics(outcome: object, method: str) -> dict[str, object]:
    """What a trial's method returned, as a dict.

    Raises:
        InvalidTrialError: it is neither a dict nor one tensor.
    """
    if isinstance(outcome, Mapping):
        return {str(key): value for key, value in outcome.items()}
    if isinstance(outcome, torch.Tensor) and method == "train_batch":
        return {"loss": outcome}
    also = ", or the loss as one tensor" if method == "train_batch" else ""
    raise InvalidTrialError(
        f"{method} returned {type(outcome).__name__}, not a dict of metrics",
        mend=f"return {{name: value}} from {method}{also}",
    )


def training_means(columns: Values) -> dict[str, object]:
    """The unweighted mean over the batches. Texts have none and become None."""
    return {
        key: _training_mean(values, f"the metric {key} of train_batch") for key, values in columns.items()
    }


def reduce_validation(columns: Values, reducers: Mapping[str, Reducer]) -> dict[str, object]:
    """One number per metric."""
    return {key: _reduced(values, reducers[key], key) for key, values in columns.items()}


def plain(value: object, name: str) -> object:
    """A metric as JSON can carry it: numbers, texts, and lists and dicts of them.

    Raises:
        InvalidTrialError: it is something else.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name) for item in value]
    if hasattr(value, "tolist"):  # tensors, numpy arrays and numbers
        return plain(value.tolist(), name)
    raise InvalidTrialError(
        f"the metric {name} is a {type(value).__name__}",
        mend=f"make {name} a number, or a list or dict of numbers",
    )


def _training_mean(values: Sequence[Any], source: str) -> float | None:
    if not _are_numbers(values) and any(isinstance(value, (str, bytes)) for value in values):
        return None
    return _mean(values, source)


def _reduced(values: Sequence[Any], reducer: Reducer, name: str) -> float:
    for value in values:
        if value is None or isinstance(value, (str, bytes)):
            raise InvalidTrialError(
                f"evaluate_batch returned {value!r} for {name}, which cannot be reduced",
                mend=f"return a number for {name}, or keep it out of the dict",
            )
    source = f"the metric {name} of evaluate_batch"
    if reducer is Reducer.AVG:
        return _mean(values, source)
    numbers_ = torch.cat([_tensor(value, source).reshape(-1) for value in values])
    return float(_COMBINE[reducer](numbers_))


def _mean(values: Sequence[Any], source: str) -> float:
    """Mean over the batches of the mean of each; one transfer from the device for all of them."""
    if not _are_numbers(values) and all(
        isinstance(value, torch.Tensor) and value.dim() == 0 for value in values
    ):
        values = torch.stack(list(values)).to(torch.float64).tolist()
    if _are_numbers(values):
        return float(sum(values) / len(values))
    return float(torch.stack([_tensor(value, source).mean() for value in values]).mean())


def _are_numbers(values: Sequence[Any]) -> bool:
    return _NUMBERS.issuperset(map(type, values))


def _tensor(value: Untyped, source: str) -> torch.Tensor:
    """As float64 on the CPU: numbers of any size and kind can be averaged there."""
    if value is None:
        value = math.nan
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", torch.float64)
    if isinstance(value, (numbers.Real, list, tuple)) or hasattr(value, "__array__"):
        return torch.as_tensor(value, dtype=torch.float64)
    raise InvalidTrialError(
        f"{source} is a {type(value).__name__}", mend="return numbers or tensors as metrics"
    )


def _as_array(value: object) -> object:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _names(metrics: Iterable[str]) -> str:
    return ", ".join(sorted(metrics)) or "nothing"
