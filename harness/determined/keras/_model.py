"""Build and check a trial's model, and create all its variables."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined.keras._tf import KERAS_3, keras, tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined.keras._context import TFKerasTrialContext
    from determined.keras._trial import TFKerasTrial
    from determined.keras._types import Untyped

_LOG = logging.getLogger(__name__)


def build_model(trial: TFKerasTrial, context: TFKerasTrialContext, config: Mapping[str, object]) -> None:
    """Call `build_model` and check its result.

    Raises:
        InvalidTrialError: it is not a model, or not wrapped, or not compiled.
    """
    model = trial.build_model()
    hint = "in build_model: model = context.wrap_model(model); model.compile(...); return model"
    if not isinstance(model, keras.Model):
        raise InvalidTrialError(
            f"build_model returned a {type(model).__name__}, not a Keras model", hint=hint
        )
    if context.model is not model:
        raise InvalidTrialError("build_model returned a model that was not wrapped", hint=hint)
    if not (model.compiled if KERAS_3 else model._is_compiled):  # noqa: SLF001  (Keras 2 has no public name for it)
        raise InvalidTrialError("build_model returned a model that is not compiled", hint=hint)
    _one_step_at_a_time(model)
    _accumulate_gradients(model, config)


def create_variables(context: TFKerasTrialContext, spec: Untyped, strategy: Untyped) -> None:
    """Create the variables that training would create: lazy weights and optimizer slots."""
    model, optimizer = context.model, context.model.optimizer
    if KERAS_3 and strategy.num_replicas_in_sync > 1:
        # as `fit` does: metrics created while several devices are traced cannot be read by them
        with strategy.scope():
            model._symbolic_build(data_batch=spec)  # noqa: SLF001
        return
    if model.built and hasattr(optimizer, "build"):
        optimizer.build(model.trainable_variables)
        return

    def step(data: Untyped) -> Untyped:
        return strategy.run(model.train_step, args=(data,))

    tf.function(step).get_concrete_function(spec)  # tracing makes all variables, and trains nothing


def train_function(model: Untyped) -> Untyped:
    """Return Keras' train function, which `model.fit` calls for each batch."""
    model.make_train_function()
    return model.train_function


def _one_step_at_a_time(model: Untyped) -> None:
    """Set steps_per_execution to 1, because a report or checkpoint may be due after any batch."""
    if KERAS_3:
        several, model.steps_per_execution = model.steps_per_execution != 1, 1
    else:
        several = int(model._steps_per_execution.numpy()) != 1  # noqa: SLF001  (as above)
        model._steps_per_execution.assign(1)  # noqa: SLF001
    if several:
        _LOG.info("steps_per_execution is set to 1: a report or checkpoint may be due after any batch")


def _accumulate_gradients(model: Untyped, config: Mapping[str, object]) -> None:
    section = config.get("optimizations")
    options = section if isinstance(section, dict) else {}
    frequency = options.get("aggregation_frequency", 1)
    if frequency == 1:
        return
    if not KERAS_3 or model.optimizer is None or not options.get("average_aggregated_gradients", True):
        raise InvalidTrialError(
            "optimizations.aggregation_frequency needs Keras 3 and always averages gradients",
            hint="use TensorFlow 2.16 or newer and remove average_aggregated_gradients; or set it to 1",
        )
    model.optimizer.gradient_accumulation_steps = frequency
