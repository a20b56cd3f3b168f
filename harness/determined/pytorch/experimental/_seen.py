"""What reducers have seen so far, as a checkpoint keeps it: numbers, texts, tensors, and lists of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from determined.pytorch._forms import numpy_allowed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from determined.pytorch._reducers import MetricReducer

_LOG = logging.getLogger(__name__)
_VALUES = (type(None), bool, int, float, str, bytes)


def save(reducers: Sequence[MetricReducer], file: Path) -> None:
    """Write what `torch.load(weights_only=True)` reads."""
    states = [vars(reducer) for reducer in reducers]
    torch.save([{name: value for name, value in state.items() if _plain(value)} for state in states], file)


def load(reducers: Sequence[MetricReducer], file: Path) -> None:
    with numpy_allowed():
        states: list[dict[str, Any]] = torch.load(file, weights_only=True)
    for reducer, state in zip(reducers, states, strict=True):
        vars(reducer).update(state)


def warn_of_what_is_lost(reducers: Sequence[MetricReducer]) -> None:
    for reducer in reducers:
        lost = [name for name, value in vars(reducer).items() if not _plain(value) and not _machinery(value)]
        if lost:
            _LOG.warning(
                "the reducer %s forgets %s when the job is interrupted: keep numbers, tensors, lists",
                type(reducer).__name__,
                ", ".join(lost),
            )


def _machinery(value: object) -> bool:
    """What works on values, and holds none."""
    return callable(value) and not isinstance(value, torch.nn.Module)


def _plain(value: object) -> bool:
    if type(value) is list or type(value) is tuple:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(_plain(key) and _plain(item) for key, item in value.items())
    array = type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "O") != "O"
    return type(value) in _VALUES or isinstance(value, torch.Tensor) or array
