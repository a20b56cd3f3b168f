"""The files of a Keras checkpoint: every variable that training changes, and the states that resume it.

Variables are written as arrays in a fixed order, because their names change from version to version of
Keras.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

from determined._contract.errors import CheckpointError
from determined.keras import _feed
from determined.keras._tf import KERAS_3, keras, tf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from determined.keras._hooks import Hooks
    from determined.keras._tf import Untyped
    from determined.keras._trial import TFKerasTrialContext

_WEIGHTS_FILE = "determined-keras-model-weights.npz"
_OPTIMIZER_FILE = "determined-keras-optimizer-weights.npz"
_USERS_FILE = "determined-keras-user-variables.npz"
_CALLBACKS_FILE = "determined-callbacks.v1.pkl"
_RANDOM_FILE = "rng_state.pkl"
_HINT = "restore the code that wrote the checkpoint (a copy is in its code/), or start a new experiment"


def write(directory: Path, context: TFKerasTrialContext, hooks: Hooks, *, ask: bool) -> None:
    _write_variables(directory / _WEIGHTS_FILE, weights(context))
    _write_variables(directory / _OPTIMIZER_FILE, _optimizer_variables(context))
    if own := _user_variables(context):
        _write_variables(directory / _USERS_FILE, own)
    _pickle(directory / _CALLBACKS_FILE, hooks.states(ask=ask))
    _pickle(directory / _RANDOM_FILE, _feed.capture())


def read_weights(directory: Path, context: TFKerasTrialContext) -> None:
    """Restore the weights alone."""
    _read_variables(directory / _WEIGHTS_FILE, weights(context))


def read(directory: Path, context: TFKerasTrialContext, hooks: Hooks) -> None:
    """Restore everything but the random states of Python and numpy, which are restored last.

    Raises:
        CheckpointError: the checkpoint does not fit the trial.
    """
    read_weights(directory, context)
    _read_variables(directory / _OPTIMIZER_FILE, _optimizer_variables(context))
    if (directory / _USERS_FILE).is_file():  # not in checkpoints of earlier versions
        _read_variables(directory / _USERS_FILE, _user_variables(context))
    hooks.load_states(_unpickle(directory / _CALLBACKS_FILE))


def read_random_states(directory: Path) -> None:
    _feed.restore(_unpickle(directory / _RANDOM_FILE))


def _pickle(path: Path, value: Untyped) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file)


def _unpickle(path: Path) -> Untyped:
    try:
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301  (written by the trial's own callbacks, with any objects)
    except (OSError, EOFError, ImportError, AttributeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="resume from a checkpoint that detbuild wrote"
        ) from error


def weights(context: TFKerasTrialContext) -> list[Untyped]:
    """Return the weights in the order of `model.set_weights`."""
    return list(context.model.weights)


def _optimizer_variables(context: TFKerasTrialContext) -> list[Untyped]:
    """Return the variables of the optimizers and the states of random layers."""
    found = [variable for one in _optimizers(context) for variable in _of_optimizer(one)]
    found += _seeds_of_keras_3(context.model) if KERAS_3 else _seeds_of_keras_2(context.model)
    return list({id(variable): variable for variable in found}.values())


def _user_variables(context: TFKerasTrialContext) -> list[Untyped]:
    """Return variables that are attributes of the model or its layers and not tracked by Keras 3."""
    if not KERAS_3:
        return []
    model = context.model
    known = {id(one) for one in (*weights(context), *_optimizer_variables(context), *model.metrics_variables)}
    held = [value for owner in (model, *model._flatten_layers(), *model.metrics) for value in _held(owner)]  # noqa: SLF001
    return [one for one in {id(one): one for one in held}.values() if id(one) not in known]


def _held(owner: Untyped) -> list[Untyped]:
    public = [value for name, value in vars(owner).items() if not name.startswith("_")]
    return [one for one in tf.nest.flatten(public) if isinstance(one, tf.Variable)]


def _write_variables(path: Path, variables: list[Untyped]) -> None:
    """Write one array per variable; only their order matters, not their names."""
    named = {f"{number:04d}/{_name(one)}": _value(one) for number, one in enumerate(variables)}
    with path.open("wb") as file:
        np.savez(file, **named)


def _read_variables(path: Path, variables: list[Untyped]) -> None:
    """Restore variables from a file.

    Raises:
        CheckpointError: the file is missing or from another model.
    """
    try:
        with np.load(path) as file:
            values = [file[name] for name in file.files]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="use a checkpoint of a TFKerasTrial"
        ) from error
    if len(values) != len(variables):
        raise CheckpointError(
            f"the trial has {len(variables)} variables, but {path.name} of its checkpoint has {len(values)}",
            hint=_HINT,
        )
    for variable, value in zip(variables, values, strict=True):
        _assign(variable, value)


def same(one: TFKerasTrialContext, other: TFKerasTrialContext) -> bool:
    """Whether the models of two trials are bit-identical."""
    ours, theirs = weights(one), weights(other)
    return len(ours) == len(theirs) and all(
        _value(a).tobytes() == _value(b).tobytes() for a, b in zip(ours, theirs, strict=True)
    )


def _assign(variable: Untyped, value: Untyped) -> None:
    wanted = _value(variable)
    if value.dtype.kind == "V":  # numpy files do not support bfloat16
        value = value.view(wanted.dtype)
    if value.shape != wanted.shape:
        raise CheckpointError(
            f"{_name(variable)} has the shape {wanted.shape}, but {value.shape} in the checkpoint", hint=_HINT
        )
    variable.assign(value)


def _value(variable: Untyped) -> Untyped:
    return np.asarray(variable.numpy())


def _name(variable: Untyped) -> str:
    return str(getattr(variable, "path", variable.name)).replace("/", ".").replace(":0", "")


def _optimizers(context: TFKerasTrialContext) -> list[Untyped]:
    """Return the compiled optimizer, the wrapped ones, and those that are attributes of the model."""
    kinds = (
        (keras.optimizers.Optimizer,)
        if KERAS_3
        else (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)
    )
    model = context.model
    found = [model.optimizer, *context.optimizers, *vars(model).values()]
    return list({id(one): one for one in found if isinstance(one, kinds)}.values())


def _of_optimizer(optimizer: Untyped) -> Iterator[Untyped]:
    variables = optimizer.variables
    yield from variables() if callable(variables) else variables
    if not KERAS_3:  # e.g. the learning rate, which a callback may lower
        settings = [*getattr(optimizer, "_hyper", {}).values(), getattr(optimizer, "_learning_rate", None)]
        yield from (value for value in settings if isinstance(value, tf.Variable))


def _seeds_of_keras_3(model: Untyped) -> list[Untyped]:
    """Return the seed generators: variables of the model that are not weights, and a global one."""
    from keras.src.random.seed_generator import global_seed_generator

    known = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [*(one for one in model.variables if id(one) not in known), global_seed_generator().state]


def _seeds_of_keras_2(model: Untyped) -> list[Untyped]:
    layers = (getattr(module, "_random_generator", None) for module in (model, *model.submodules))
    generators = (getattr(layer, "_generator", None) for layer in layers)
    return [*(one.state for one in generators if one is not None), tf.random.get_global_generator().state]
