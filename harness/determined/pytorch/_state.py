"""The training state of a trial as one dict: capture and restore."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import CheckpointError
from determined.pytorch import _rng
from determined.pytorch._distributed import inner
from determined.pytorch._gradients import gradients_of, restore_gradients
from determined.pytorch._host_copy import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext

State = dict[str, Any]
_MODELS = "models_state_dict"
_OPTIMIZERS = "optimizers_state_dict"
_SCHEDULERS = "lr_schedulers_state_dict"
_SCALER = "scaler_state_dict"
_AROUND = ("module", "_orig_mod")  # prefixes that DistributedDataParallel and torch.compile add


def capture(
    context: PyTorchTrialContext, hooks: Hooks, data: _rng.State, *, call_hooks: bool = True
) -> State:
    """Capture the state under the keys of Determined's checkpoints, plus `gradients` and `data`.

    Args:
        context: holds models, optimizers, schedulers and scaler.
        hooks: the callbacks, which may change the state.
        data: position in the training data.
        call_hooks: call the callbacks; otherwise use the states that they saved last.
    """
    state: State = {
        **bulk(context),
        _SCHEDULERS: [one.scheduler.state_dict() for one in context.lr_schedulers],
        "callbacks": hooks.state_dicts() if call_hooks else hooks.newest_states,
    }
    if context.gradients.scaler is not None:
        state[_SCALER] = context.gradients.scaler.state_dict()
    state.update(capture_own(context, data))
    if call_hooks:
        hooks.call("on_checkpoint_save_start", state)
    return state


def bulk(context: PyTorchTrialContext) -> State:
    """Return the large part of the state: models and optimizers."""
    return {
        _MODELS: [inner(model).state_dict() for model in context.models],
        _OPTIMIZERS: [optimizer.state_dict() for optimizer in context.optimizers],
    }


def capture_own(context: PyTorchTrialContext, data: _rng.State) -> State:
    """Capture the state that differs between the processes of a trial."""
    state: State = {"rng_state": _rng.capture()}
    gradients = gradients_of(map(inner, context.models))
    if any(gradients):
        state["gradients"] = gradients
    if data:
        state["data"] = data
    return state


def restore(state: State, context: PyTorchTrialContext, hooks: Hooks) -> None:
    """Restore everything but the random states, which the caller restores last.

    Raises:
        CheckpointError: the state does not fit the trial.
    """
    hooks.call("on_checkpoint_load_start", state)
    restore_models(state, context)
    _each(context.optimizers, state.get(_OPTIMIZERS, []), "optimizers")
    _each(
        [one.scheduler for one in context.lr_schedulers],
        state.get(_SCHEDULERS, []),
        "learning-rate schedulers",
    )
    if context.gradients.scaler is not None and _SCALER in state:
        context.gradients.scaler.load_state_dict(state[_SCALER])
    restore_gradients(map(inner, context.models), state.get("gradients", []))
    hooks.load_state_dicts(state.get("callbacks", {}))


def restore_models(state: Mapping[str, Any], context: PyTorchTrialContext) -> None:
    """Restore the weights alone."""
    _each([inner(model) for model in context.models], state[_MODELS], "models")


def restore_random_states(state: Mapping[str, Any]) -> None:
    if "rng_state" in state:
        _rng.restore(state["rng_state"])


def _each(things: list[Any], states: list[Any], what: str) -> None:
    hint = "restore the code that wrote the checkpoint (a copy is in its code/), or start a new experiment"
    if len(things) != len(states):
        raise CheckpointError(
            f"the trial has {len(things)} {what}, but its checkpoint has {len(states)}", hint=hint
        )
    for number, (thing, state) in enumerate(zip(things, states, strict=True)):
        with _fitting(f"number {number} of the trial's {what}", hint):
            thing.load_state_dict(_renamed(state, thing) if isinstance(thing, torch.nn.Module) else state)


@contextmanager
def _fitting(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint does not fit {what}: {error}", hint=hint) from error


def _renamed(found: Mapping[str, Any], model: torch.nn.Module) -> Mapping[str, Any]:
    """Rename weights to the model's own keys, which compilation and DistributedDataParallel change."""
    wanted = {_bare(name): name for name in model.state_dict()}
    renamed = {wanted.get(_bare(name), name): value for name, value in found.items()}
    return renamed if set(renamed) == set(model.state_dict()) != set(found) else found


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _AROUND)


def same_weights(one: PyTorchTrialContext, other: PyTorchTrialContext) -> bool:
    """Whether the models of two trials are bit-identical."""
    return len(one.models) == len(other.models) and all(
        _equal(inner(a).state_dict(), inner(b).state_dict())
        for a, b in zip(one.models, other.models, strict=True)
    )


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return set(one) == set(other) and all(_same_value(one[name], other[name]) for name in one)


def _same_value(one: object, other: object) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return type(one) is type(other)  # a layer's own extra state need not be comparable
    kinds = [(type(each), each.layout, each.dtype, each.is_nested) for each in (one, other)]
    if kinds[0] != kinds[1] or (not one.is_nested and one.shape != other.shape):
        return False
    mine, others = parts(one.detach()), parts(other.detach())
    return len(mine) == len(others) and all(map(_same_bits, mine, others))


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare bitwise: NaN equals NaN, and 0.0 differs from -0.0."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.as_subclass(torch.Tensor).detach().cpu().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8)
