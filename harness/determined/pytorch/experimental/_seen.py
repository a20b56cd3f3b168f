"""The state of reducers in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from determined.pytorch._reducers import MetricReducer


def save(reducers: Sequence[MetricReducer], file: Path) -> None:
    """Save the state of reducers in a form that `torch.load(weights_only=True)` reads.

    Raises:
        InvalidTrialError: the state of a reducer cannot be pickled.
    """
    torch.save(
        [freeze(_state_of(reducer), f"the reducer {type(reducer).__name__}") for reducer in reducers], file
    )


def load(reducers: Sequence[MetricReducer], file: Path) -> None:
    for reducer, state in zip(reducers, thaw(torch.load(file, weights_only=True)), strict=True):
        vars(reducer).update(state)


def _state_of(reducer: MetricReducer) -> dict[str, object]:
    """Return the attributes of a reducer without its functions."""
    return {
        name: value
        for name, value in vars(reducer).items()
        if not callable(value) or isinstance(value, torch.nn.Module)
    }
