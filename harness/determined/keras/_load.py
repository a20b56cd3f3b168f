"""Load a Keras model with its trained weights from a checkpoint directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from determined._trial.state import described, trial_class_of
from determined.keras import _checkpoint
from determined.keras._data import training_feed
from determined.keras._tf import tf
from determined.keras._trial import Setting, TFKerasTrial, TFKerasTrialContext, build_model, create_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from determined.keras._tf import Untyped


def load_model_from_checkpoint_path(
    path: str | Path,
    tags: Sequence[str] | None = None,  # noqa: ARG001  (Determined's own signature, for SavedModels)
    trial_class: type[TFKerasTrial] | None = None,
) -> Untyped:
    """Build and compile the model of a checkpoint and load its weights.

    A model that creates its weights on the first batch needs the training data for its shape.

    Args:
        path: directory of the checkpoint.
        tags: has no effect.
        trial_class: default: the class that wrote it, imported from the checkpoint's copy of the code.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its class cannot be found.
    """
    directory = Path(path)
    facts = described(directory)
    config = facts["experiment_config"]
    context = TFKerasTrialContext(Setting(hparams=facts["hparams"], config=config))
    with trial_class_of(directory, facts["trial_cls_spec"], TFKerasTrial, trial_class) as found:
        trial = found(context)
        build_model(trial, context, config)
        training = None if context.model.built else trial.build_training_data_loader()
    if training is not None:
        strategy = tf.distribute.get_strategy()
        feed = training_feed(training, context, seed=0, strategy=strategy)
        create_variables(context, feed.spec(), strategy)
    _checkpoint.read_weights(directory, context)
    return context.model
