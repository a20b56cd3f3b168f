"""Callbacks: the hooks that users may override, and their dispatch at no cost for unused ones."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

State = dict[str, object]
_LOG = logging.getLogger(__name__)


class _LegacyHooks:
    """Hooks that Determined has removed; a step is the batches between two reports."""

    def on_train_step_start(self, step_id: int) -> None:
        """Called before a step; steps count from 1 and have `scheduling_unit` batches."""

    def on_train_step_end(self, step_id: int, metrics: State) -> None:
        """Called after a step; `metrics` has `avg_metrics` and `batch_metrics`."""

    def on_before_optimizer_step(self, parameters: Iterator[torch.nn.Parameter]) -> None:
        """Called after gradients are averaged; only for trials whose optimizer the harness steps."""

    def on_validation_step_start(self) -> None: ...

    def on_validation_step_end(self, metrics: State) -> None: ...


class PyTorchCallback(_LegacyHooks):
    """Hooks of a trial. Override any of them; the harness calls them in this order."""

    def on_trial_startup(self, first_batch_idx: int, checkpoint_uuid: str | None) -> None: ...

    def on_checkpoint_load_start(self, checkpoint: State) -> None:
        """Called before a checkpoint is restored; may change its contents."""

    def on_training_start(self) -> None: ...

    def on_training_epoch_start(self, epoch_idx: int) -> None: ...

    def on_training_epoch_end(self, epoch_idx: int) -> None: ...

    def on_training_workload_end(self, avg_metrics: State, batch_metrics: list[State]) -> None:
        """Called after a report, with the means and the values of each batch since the last report."""

    def on_validation_start(self) -> None: ...

    def on_validation_epoch_start(self) -> None: ...

    def on_validation_epoch_end(self, outputs: list[State]) -> None: ...

    def on_validation_end(self, metrics: State) -> None: ...

    def on_checkpoint_save_start(self, checkpoint: State) -> None:
        """Called before a checkpoint is written; may change its contents."""

    def on_checkpoint_end(self, checkpoint_dir: str) -> None:
        """Deprecated name of `on_checkpoint_write_end`."""

    def on_checkpoint_write_end(self, checkpoint_dir: pathlib.Path) -> None: ...

    def on_checkpoint_upload_end(self, uuid: str) -> None: ...

    def on_trial_shutdown(self) -> None:
        """Called last, also if the trial failed."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state_dict: State) -> None: ...


class ClipGradsL2Norm(PyTorchCallback):
    """Clips the total norm of all gradients to `clip_value`."""

    def __init__(self, clip_value: float) -> None:
        self._clip_value = clip_value

    def on_before_optimizer_step(self, parameters: Iterator[torch.nn.Parameter]) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, self._clip_value)


class ClipGradsL2Value(PyTorchCallback):
    """Clips every gradient to the range from -`clip_value` to `clip_value`."""

    def __init__(self, clip_value: float) -> None:
        self._clip_value = clip_value

    def on_before_optimizer_step(self, parameters: Iterator[torch.nn.Parameter]) -> None:
        torch.nn.utils.clip_grad_value_(parameters, self._clip_value)


class Hooks:
    """The callbacks of one trial, with each hook resolved once to the overriding methods."""

    def __init__(self, callbacks: Mapping[str, PyTorchCallback]) -> None:
        self.callbacks = _checked(callbacks)
        self.newest_states: dict[str, State] = {}  # saved or loaded last
        names = [name for name in dir(PyTorchCallback) if name.startswith("on_")]
        self._hooks = {name: _overriding(self.callbacks.values(), name) for name in names}
        for callback in self.callbacks.values():
            _warn_of_unknown_hooks(type(callback), names)
        self.epoch_start = tuple(_epoch_hook(hook) for hook in self.of("on_training_epoch_start"))
        self.epoch_end = tuple(_epoch_hook(hook) for hook in self.of("on_training_epoch_end"))

    def of(self, name: str) -> tuple[Callable[..., object], ...]:
        return self._hooks[name]

    def call(self, name: str, *args: object, **keywords: object) -> None:
        for hook in self._hooks[name]:
            hook(*args, **keywords)

    def state_dicts(self) -> dict[str, State]:
        self.newest_states = {name: one.state_dict() for name, one in self.callbacks.items()}
        return self.newest_states

    def load_state_dicts(self, states: Mapping[str, State]) -> None:
        """Load the states of callbacks; one without a state in the checkpoint starts new."""
        self.newest_states = dict(states)
        for name, one in self.callbacks.items():
            if name in states:
                one.load_state_dict(states[name])


def _overriding(callbacks: Iterable[PyTorchCallback], name: str) -> tuple[Callable[..., object], ...]:
    own = getattr(PyTorchCallback, name)
    hooks = (getattr(one, name) for one in callbacks)
    return tuple(hook for hook in hooks if getattr(hook, "__func__", None) is not own)


def _warn_of_unknown_hooks(kind: type[PyTorchCallback], hooks: Iterable[str]) -> None:
    """Warn about hook names of other frameworks, which would be ignored silently."""
    for name in dir(kind):
        if name.startswith("on_") and callable(getattr(kind, name)) and name not in hooks:
            near = difflib.get_close_matches(name, hooks, n=1, cutoff=0)
            _LOG.warning(
                "%s of the callback %s is never called; did you mean %s?", name, kind.__name__, *near
            )


def _checked(callbacks: object) -> dict[str, PyTorchCallback]:
    hint = "return {name: PyTorchCallback} from build_callbacks"
    if not isinstance(callbacks, Mapping):
        raise InvalidTrialError(f"build_callbacks returned {type(callbacks).__name__}, not a dict", hint=hint)
    for name, callback in callbacks.items():
        if not isinstance(callback, PyTorchCallback):
            raise InvalidTrialError(
                f"callback {name!r} is a {type(callback).__name__}, not a PyTorchCallback", hint=hint
            )
    return dict(callbacks)


def _epoch_hook(hook: Callable[..., object]) -> Callable[[int], object]:
    """Return an epoch hook with one argument; before Determined 0.17.9 it had none."""
    if inspect.signature(hook).parameters:
        return hook
    return lambda _: hook()
