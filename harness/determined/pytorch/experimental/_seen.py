"""What reducers have seen so far, as a checkpoint keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from determined.pytorch._reducers import MetricReducer


def save(reducers: Sequence[MetricReducer], file: Path) -> None:
    """Write what `torch.load(weights_only=True)` reads.

    Raises:
        InvalidTrialError: a reducer holds what cannot be pickled.
    """
    torch.save(
        [freeze(_seen(reducer), f"the reducer {type(reducer).__name__}") for reducer in reducers], file
    )


def load(reducers: Sequence[MetricReducer], file: Path) -> None:
    for reducer, state in zip(reducers, thaw(torch.load(file, weights_only=True)), strict=True):
        vars(reducer).update(state)


def _seen(reducer: MetricReducer) -> dict[str, object]:
    """All but functions, which only work on what was seen."""
    return {
        name: value
        for name, value in vars(reducer).items()
        if not callable(value) or isinstance(value, torch.nn.Module)
    }
