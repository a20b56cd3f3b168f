"""The files of a Keras checkpoint."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from determined._contract.errors import CheckpointError
from determined.keras import _random, _variables

if TYPE_CHECKING:
    from pathlib import Path

    from determined.keras._context import TFKerasTrialContext
    from determined.keras._hooks import Hooks
    from determined.keras._types import Untyped

WEIGHTS_FILE = "determined-keras-model-weights.npz"
OPTIMIZER_FILE = "determined-keras-optimizer-weights.npz"
USERS_FILE = "determined-keras-user-variables.npz"
CALLBACKS_FILE = "determined-callbacks.v1.pkl"
RANDOM_FILE = "rng_state.pkl"


def write(directory: Path, context: TFKerasTrialContext, hooks: Hooks, *, ask: bool) -> None:
    _variables.write(directory / WEIGHTS_FILE, _variables.weights(context))
    _variables.write(directory / OPTIMIZER_FILE, _variables.others(context))
    if own := _variables.users(context):
        _variables.write(directory / USERS_FILE, own)
    _pickle(directory / CALLBACKS_FILE, hooks.states(ask=ask))
    _pickle(directory / RANDOM_FILE, _random.capture())


def read_weights(directory: Path, context: TFKerasTrialContext) -> None:
    """Restore the weights alone."""
    _variables.read(directory / WEIGHTS_FILE, _variables.weights(context))


def read(directory: Path, context: TFKerasTrialContext, hooks: Hooks) -> None:
    """Restore everything but the random states of Python and numpy, which are restored last.

    Raises:
        CheckpointError: the checkpoint does not fit the trial.
    """
    read_weights(directory, context)
    _variables.read(directory / OPTIMIZER_FILE, _variables.others(context))
    if (directory / USERS_FILE).is_file():  # not in checkpoints of earlier versions
        _variables.read(directory / USERS_FILE, _variables.users(context))
    hooks.load_states(_unpickle(directory / CALLBACKS_FILE))


def read_random_states(directory: Path) -> None:
    _random.restore(_unpickle(directory / RANDOM_FILE))


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
