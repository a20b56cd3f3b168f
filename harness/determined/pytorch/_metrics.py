"""Metrics of many batches: kept as they come, and reduced only when somebody asks.

What is on a GPU stays there until then, for asking it for a number makes the CPU wait. A number that is in
the CPU's own memory is taken at once: that is cheaper than keeping its tensor, and no later batch can change
it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


class Window:
    """The metrics of the batches since the last reset.

    `add` is called for each batch and costs a microsecond: no device is waited for, and nothing is averaged.

    Args:
        method: of the trial, which returns the metrics.
        keep_tensors: somebody will ask for `rows`.
    """

    def __init__(self, method: str, *, keep_tensors: bool = False) -> None:
        self._method, self._keep_tensors = method, keep_tensors
        self.columns: Values = {}
        self.count = 0

    def add(self, metrics: object) -> None:
        if type(metrics) is not dict:
            metrics = as_metrics(metrics, self._method)
        if not self.count:
            self.columns = {key: [] for key in metrics}
        columns = self.columns
        if len(metrics) != len(columns):
            self._refuse(metrics)
        try:
            for key, value in metrics.items():
                if type(value) is _Tensor and value.is_cpu and not self._keep_tensors and value.numel() == 1:
                    value = value.item()  # noqa: PLW2901
                elif isinstance(value, _Tensor):
                    # what carries a gradient was just computed; the next batch may change others in place
                    value = value.detach() if value.requires_grad else value.clone()  # noqa: PLW2901
                columns[key].append(value)
        except KeyError:
            self._refuse(metrics)
        self.count += 1

    def reset(self) -> None:
        self.columns, self.count = {}, 0

    def rows(self) -> list[dict[str, object]]:
        """One dict per batch, tensors as numpy arrays: what callbacks are given."""
        columns = {key: [_as_array(value) for value in values] for key, values in self.columns.items()}
        return [{key: values[row] for key, values in columns.items()} for row in range(self.count)]

    def _refuse(self, metrics: Mapping[str, object]) -> None:
        raise InvalidTrialError(
            f"{self._method} returned the metrics {_names(metrics)}, and {_names(self.columns)} before",
            mend=f"return the same metrics from {self._method} for every batch",
        )


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
