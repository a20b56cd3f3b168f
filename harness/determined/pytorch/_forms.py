"""The forms that checkpoints of Determined 0.12 to 0.38 have: where their files are, and what is in them."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from determined._checkpoints import METADATA_FILE
from determined._errors import CheckpointError
from determined._hparams import sampled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from determined.pytorch._types import Untyped

STATE_FILE = "state_dict.pth"
LOAD_DATA_FILE = "load_data.json"
_PLACES = (STATE_FILE, f"determined/{STATE_FILE}", f"pedl/{STATE_FILE}", "checkpoint.pt")
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
    """The file with the weights.

    Raises:
        CheckpointError: there is none.
    """
    for place in _PLACES:
        if (directory / place).is_file():
            return directory / place
    raise CheckpointError(
        f"{directory} holds no {STATE_FILE}", mend="name the directory of a PyTorch checkpoint"
    )


def numpy_allowed() -> AbstractContextManager[object]:
    """Let safe loading take arrays and numbers of numpy: Determined kept numpy's random state as it was."""
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


def today(state: Untyped) -> dict[str, Any]:
    """The state under today's names. One model, optimizer and scheduler were all that a trial had in 0.12."""
    if state and all(isinstance(value, torch.Tensor) for value in state.values()):
        return {"models_state_dict": [state]}
    renamed = dict(state)
    for old, new in _LISTS.items():
        if old in renamed:
            value = renamed.pop(old)
            renamed.setdefault(new, [] if value is None else [value])
    return renamed


def described(directory: Path) -> dict[str, Any]:
    """What is known of the trial: `trial_cls_spec`, `hparams` and `experiment_config`, as far as they are.

    Before Determined 0.18 they stood in metadata.json, and the class in the config's entrypoint.
    """
    found = {**_read(directory / METADATA_FILE), **_read(directory / LOAD_DATA_FILE)}
    config = found.get("experiment_config") or {}
    hparams = found.get("hparams")
    return {
        "trial_cls_spec": found.get("trial_cls_spec") or _entrypoint(config),
        "hparams": sampled(config.get("hyperparameters")) if hparams is None else hparams,
        "experiment_config": config,
    }


def _entrypoint(config: Mapping[str, Any]) -> str:
    entrypoint = config.get("entrypoint")
    return entrypoint if isinstance(entrypoint, str) and ":" in entrypoint else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", mend="name the directory of a whole checkpoint"
        ) from error
    return found if isinstance(found, dict) else {}
