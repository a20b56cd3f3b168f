"""Load a trial with its trained weights from a checkpoint directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from determined._contract import checkpoints
from determined._contract.run_info import RunInfo
from determined._trial.state import CODE_DIR, described, importing_from, trial_class_of
from determined.pytorch import _checkpoint, _forms, _state
from determined.pytorch._context import PyTorchTrialContext, Setting
from determined.pytorch._dialect import build_model
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
    """Build the trial of a checkpoint on the CPU and load its weights.

    Args:
        path: directory of the checkpoint; inside a run also its UUID.
        trial_class: default: the class that wrote it, imported from the checkpoint's copy of the code.
        trial_kwargs: for its `__init__`, in addition to the context.
        torch_load_kwargs: for `torch.load`; `{"weights_only": False}` also loads any pickled object and
            runs whatever code the file names: only for checkpoints that you trust.
        more_torch_load_kwargs: the same, in the form used before Determined 0.21.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its class cannot be found.
    """
    run = RunInfo.from_environ(os.environ)
    directory = checkpoints.located(path, *([Path(run.checkpoint_dir)] if run else []))
    facts = described(directory)
    _forms.state_file(directory)
    context = PyTorchTrialContext(
        Setting(
            device=torch.device("cpu"),
            hparams=facts["hparams"],
            config=facts["experiment_config"],
            move_models=False,
        )
    )
    with trial_class_of(directory, facts["trial_cls_spec"], PyTorchTrial, trial_class) as found:
        trial = found(context, **dict(trial_kwargs or {}))
        build_model(trial, context)
    options = {**(torch_load_kwargs or {}), **more_torch_load_kwargs}
    with importing_from(directory / CODE_DIR, ""):
        state = _checkpoint.read(directory, **options)
    _state.restore_models(state, context)
    return trial


def reset_parameters(model: torch.nn.Module) -> None:
    """Call `reset_parameters` of every module that has it."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
