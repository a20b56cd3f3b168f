"""A trial with its trained weights, from the directory of a checkpoint alone."""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from determined._errors import CheckpointError
from determined.pytorch import _checkpoint, _forms, _state
from determined.pytorch._context import PyTorchTrialContext, Setting
from determined.pytorch._dialect import build_model
from determined.pytorch._trial import PyTorchTrial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        torch_load_kwargs: for `torch.load`; `{"weights_only": False}` also takes what is no plain weight or
            number, and runs whatever code the file names: only for checkpoints that you trust.
        more_torch_load_kwargs: the same, as Determined took them before 0.21.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its class not be found.
    """
    directory = Path(path)
    described = _forms.described(directory)
    _forms.state_file(directory)
    context = PyTorchTrialContext(
        Setting(
            device=torch.device("cpu"),
            hparams=described["hparams"],
            config=described["experiment_config"],
            place=False,
        )
    )
    code, spec = directory / _checkpoint.CODE_DIR, described["trial_cls_spec"]
    with _importing_from(code, spec.partition(":")[0]) if trial_class is None else nullcontext():
        trial = (trial_class or _class_of(directory, spec))(context, **dict(trial_kwargs or {}))
        build_model(trial, context)
    options = {**(torch_load_kwargs or {}), **more_torch_load_kwargs}
    with _importing_from(code, ""):
        state = _checkpoint.read(directory, **options)
    _state.put_models(state, context)
    return trial


def reset_parameters(model: torch.nn.Module) -> None:
    """Call `reset_parameters` of every part of a model that has it."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def _class_of(directory: Path, spec: str) -> type[PyTorchTrial]:
    module, _, name = spec.partition(":")
    mend = "pass trial_class="
    if not module:
        raise CheckpointError(f"{directory} does not name its trial class", mend=mend)
    if module == "__main__":
        raise CheckpointError(f"the trial class {name} was defined in the script that was run", mend=mend)
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the trial class {spec} cannot be imported: {error}", mend=mend) from error
    if not (isinstance(found, type) and issubclass(found, PyTorchTrial)):
        raise CheckpointError(f"{spec} is not a PyTorchTrial", mend=mend)
    return found


@contextmanager
def _importing_from(code: Path, module: str) -> Iterator[None]:
    """Let the checkpoint's own modules be found first; what was imported before stays as it was."""
    own = {path.stem for path in code.iterdir()} if code.is_dir() else set()
    own.add(module.partition(".")[0])
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}
    no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(code))
    try:
        yield
    finally:
        sys.path.remove(str(code))
        sys.dont_write_bytecode = no_bytecode
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(before)
