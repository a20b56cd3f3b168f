"""A trial with its trained weights, from the directory of a checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from determined._saved_trial import class_of, described
from determined.pytorch import _checkpoint, _state
from determined.pytorch._context import PyTorchTrialContext, Setting
from determined.pytorch._trial import PyTorchTrial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined.pytorch._types import Untyped


def load_trial_from_checkpoint_path(
    path: str | Path,
    trial_class: type[PyTorchTrial] | None = None,
    trial_kwargs: Mapping[str, Any] | None = None,
    torch_load_kwargs: Mapping[str, Any] | None = None,
    **more_torch_load_kwargs: Untyped,
) -> PyTorchTrial:
    """Build the trial of a checkpoint and give it the weights, on the CPU.

    Args:
        path: directory of the checkpoint.
        trial_class: by default the class that wrote it, imported from the checkpoint's copy of the code.
        trial_kwargs: for its `__init__`, besides the context.
        torch_load_kwargs: for `torch.load`, instead of `weights_only=True`.
        more_torch_load_kwargs: the same, as Determined took them before 0.21.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its class not be found.
    """
    directory = Path(path)
    facts = described(directory)
    trial_class = trial_class or class_of(directory, str(facts.get("trial_cls_spec", "")), PyTorchTrial)
    context = PyTorchTrialContext(
        Setting(
            device=torch.device("cpu"),
            hparams=facts.get("hparams") or {},
            config=facts.get("experiment_config") or {},
            place=False,
        )
    )
    trial = trial_class(context, **dict(trial_kwargs or {}))
    options = {**(torch_load_kwargs or {}), **more_torch_load_kwargs}
    _state.put_models(_checkpoint.read(directory, **options), context)
    return trial


def reset_parameters(model: torch.nn.Module) -> None:
    """Call `reset_parameters` of every part of a model that has it."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
