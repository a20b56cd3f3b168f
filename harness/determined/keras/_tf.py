"""TensorFlow and the Keras that belongs to it: 2 up to TensorFlow 2.15, 3 from 2.16 on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from determined._errors import InvalidTrialError
from determined._seeds import seed_python

if TYPE_CHECKING:
    from determined.keras._types import Untyped

__all__ = ["KERAS_3", "KERAS_VERSION", "keras", "prepare", "tf"]

keras: Untyped = tf.keras
KERAS_3: bool = hasattr(keras, "ops")
KERAS_VERSION = str(getattr(keras, "__version__", tf.__version__))  # Keras 2 has TensorFlow's
_SEEDS = 1 << 32  # Keras takes smaller ones only


def prepare(seed: int) -> None:
    """Seed all generators, and make the random layers keep theirs where a checkpoint can take it.

    Raises:
        InvalidTrialError: Keras computes with something else than TensorFlow.
    """
    if KERAS_3 and keras.config.backend() != "tensorflow":
        raise InvalidTrialError(
            f"a TFKerasTrial trains with TensorFlow, and Keras is set up for {keras.config.backend()}",
            mend="leave KERAS_BACKEND out, or train in a script with determined.keras.DeterminedCallback",
        )
    keras.utils.set_random_seed(seed % _SEEDS)
    seed_python(seed)
    if not KERAS_3:
        keras.backend.experimental.enable_tf_random_generator()
