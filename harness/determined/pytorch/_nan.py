"""Warn about NaN metrics, once for each metric, with the first batch that had it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG = logging.getLogger(__name__)


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
