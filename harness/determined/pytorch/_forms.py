"""File layouts and keys of checkpoints from Determined 0.12 to 0.38."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import CheckpointError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from determined.pytorch._types import Untyped

STATE_FILE = "state_dict.pth"
_PATHS = (STATE_FILE, f"determined/{STATE_FILE}", f"pedl/{STATE_FILE}", "checkpoint.pt")
_LISTS = {
    "model_state_dict": "models_state_dict",
    "optimizer_state_dict": "optimizers_state_dict",
    "lr_scheduler": "lr_schedulers_state_dict",
}
_NUMBERS = (
    "Bool",
    *("Float16", "Float32", "Float64", "Complex64", "Complex128"),
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
)


def state_file(directory: Path) -> Path:
    """Return the file with the weights.

    Raises:
        CheckpointError: there is none.
    """
    for place in _PATHS:
        if (directory / place).is_file():
            return directory / place
    raise CheckpointError(
        f"{directory} has no {STATE_FILE}", hint="use the directory of a PyTorch checkpoint"
    )


def numpy_allowed() -> AbstractContextManager[object]:
    """Allow numpy arrays and numbers in safe loading: Determined stored numpy's random state unconverted."""
    allow = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
    if allow is None or importlib.util.find_spec("numpy") is None:
        return nullcontext()
    import numpy as np

    made_by = importlib.import_module(np.ndarray.__reduce__(np.zeros(0))[0].__module__)
    allowed: list[Any] = [np.ndarray, np.dtype, *(getattr(np.dtypes, f"{name}DType") for name in _NUMBERS)]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before numpy 2, and since
        allowed += [(getattr(made_by, name), f"{module}.{name}") for name in ("_reconstruct", "scalar")]
    context: AbstractContextManager[object] = allow(allowed)
    return context


def with_current_names(state: Untyped) -> dict[str, Any]:
    """Rename the keys of older checkpoints; a trial of 0.12 had one model, optimizer and scheduler."""
    if state and all(isinstance(value, torch.Tensor) for value in state.values()):
        return {"models_state_dict": [state]}
    renamed = dict(state)
    for old, new in _LISTS.items():
        if old in renamed:
            value = renamed.pop(old)
            renamed.setdefault(new, [] if value is None else [value])
    return renamed
