"""TensorFlow and its Keras: Keras 2 up to TensorFlow 2.15, Keras 3 from 2.16 on."""

from __future__ import annotations

import ast
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tensorflow as tf

from determined._contract.errors import InvalidTrialError
from determined._trial.state import seed_python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["KERAS_3", "KERAS_VERSION", "eager_only", "keras", "numbers", "prepare", "tf"]
keras: Untyped = tf.keras
KERAS_3: bool = hasattr(keras, "ops")
KERAS_VERSION = str(getattr(keras, "__version__", tf.__version__))  # Keras 2 has TensorFlow's
_SEEDS = 1 << 32  # Keras only accepts smaller seeds
_GRAPH_MODE = {"disable_eager_execution", "disable_v2_behavior"}
Untyped: TypeAlias = Any  # a model, an optimizer, a dataset, a batch
InputData: TypeAlias = Any  # (x, y), (x, y, weights), a Sequence or PyDataset, a tf.data.Dataset


def prepare(seed: int) -> None:
    """Seed all generators, and store those of random layers in variables, so that checkpoints include them.

    Raises:
        InvalidTrialError: the Keras backend is not TensorFlow.
    """
    if KERAS_3 and keras.config.backend() != "tensorflow":
        raise InvalidTrialError(
            f"a TFKerasTrial needs TensorFlow, but the Keras backend is {keras.config.backend()}",
            hint="remove KERAS_BACKEND, or train in a script with determined.keras.DeterminedCallback",
        )
    keras.utils.set_random_seed(seed % _SEEDS)
    seed_python(seed)
    if not KERAS_3:
        keras.backend.experimental.enable_tf_random_generator()


@contextmanager
def eager_only(context_dir: Path) -> Iterator[None]:
    """Check that user code does not switch TensorFlow to graph mode, before or inside the block.

    Raises:
        InvalidTrialError: it is in graph mode; names the line, and replaces Keras' error.
    """
    try:
        _check_eager(context_dir)
        yield
    except Exception as error:
        if not isinstance(error, InvalidTrialError) and not tf.executing_eagerly():
            raise _graph_mode(context_dir) from error
        raise
    _check_eager(context_dir)


def _check_eager(context_dir: Path) -> None:
    if not tf.executing_eagerly():
        raise _graph_mode(context_dir)


def _graph_mode(context_dir: Path) -> InvalidTrialError:
    place, call = next(_switches(context_dir), ("", "the call that disables eager execution"))
    return InvalidTrialError(
        f"{place}graph mode is not supported: a TFKerasTrial trains with eager execution",
        hint=f"remove {call}, or train such code in a script with the Core API",
    )


def _switches(context_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield location and text of each call in user modules that switches to graph mode."""
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.suffix == ".py" and file.is_relative_to(context_dir) and "site-packages" not in file.parts:
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Call) and _called(node) in _GRAPH_MODE:
                    yield f"{file.relative_to(context_dir)}:{node.lineno}: ", f"`{ast.unparse(node)}`"


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def numbers(metrics: Mapping[str, Untyped]) -> dict[str, object]:
    """Convert metrics to plain numbers and lists of numbers."""
    return {
        str(name): numbers(value) if isinstance(value, dict) else np.asarray(value).tolist()
        for name, value in metrics.items()
    }
