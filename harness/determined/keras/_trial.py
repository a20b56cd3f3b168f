"""TFKerasTrial and its context: what users derive from, and the checks before training."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from determined._contract.errors import InvalidTrialError
from determined._run.processes import DistributedContext
from determined._trial.context import HparamAccess, Trial
from determined.keras._tf import KERAS_3, keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from determined._contract.run_info import RunInfo
    from determined.keras._tf import InputData, Untyped

_REQUIRED = ("build_model", "build_training_data_loader", "build_validation_data_loader")
_LOG = logging.getLogger(__name__)


class TFKerasTrial(Trial):
    """A compiled Keras model and its data. Wrap the model in `build_model`, before `compile`."""

    _runner: ClassVar[str] = "keras"
    _one_process: ClassVar[bool] = True

    def __init__(self, context: TFKerasTrialContext) -> None:
        self.context = context

    def build_model(self) -> Untyped:
        """Return the model: `context.wrap_model(model)`, then `model.compile(...)`."""
        raise NotImplementedError

    def build_training_data_loader(self) -> InputData:
        """Return `(x, y)`, `(x, y, weights)`, a Sequence or PyDataset, or a `tf.data.Dataset`."""
        raise NotImplementedError

    def build_validation_data_loader(self) -> InputData:
        raise NotImplementedError

    def keras_callbacks(self) -> list[Untyped]:
        """Return callbacks from Keras and from `determined.keras.callbacks`."""
        return []

    def session_config(self) -> Untyped:
        """Return TensorFlow 1's ConfigProto; it has no effect in TensorFlow 2."""
        return None


def check_class(trial_class: type) -> None:
    """Check that a class defines the required methods.

    Raises:
        InvalidTrialError: a method is missing.
    """
    name = trial_class.__name__
    missing = [m for m in _REQUIRED if getattr(trial_class, m) is getattr(TFKerasTrial, m)]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise InvalidTrialError(
            f"{name} does not define {' and '.join(missing)}", hint=f"add {them} to {name}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The settings of a context, set before user code runs."""

    hparams: Mapping[str, object]
    config: Mapping[str, object]
    info: RunInfo | None = None  # None: the context is not part of a run
    tensorboard_dir: Path = Path("runs")
    replicas: int = 1  # devices that train together


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The options of `configure_fit`."""

    class_weight: Mapping[int, float] | None = None
    workers: int | None = None
    max_queue_size: int = 10
    shuffle: bool = True
    validation_steps: int | None = None


class TFKerasTrialContext(HparamAccess):
    """The first argument of a trial's `__init__`; keep it as `self.context`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting.hparams, setting.config, setting.info, slots=setting.replicas)
        self.distributed = DistributedContext.alone()
        self.experimental = Experimental()
        self.model: Untyped = None
        self.optimizers: list[Untyped] = []
        self.fit = Fit()
        self._setting = setting
        self._stop_requested = False

    @classmethod
    def of_config(cls, config: Mapping[str, object], hparams: Mapping[str, object]) -> TFKerasTrialContext:
        return cls(Setting(hparams=hparams, config=config))

    def wrap_model(self, model: Untyped) -> Untyped:
        """Include a model in checkpoints. Compile and return the returned model."""
        if not isinstance(model, keras.Model):
            raise InvalidTrialError(
                f"wrap_model got a {type(model).__name__}, not a Keras model", hint="pass the model itself"
            )
        if self.model is not None and self.model is not model:
            raise InvalidTrialError(
                "wrap_model was called for two models",
                hint="train one model: put the parts into one keras.Model with a train_step of its own",
            )
        self.model = model
        return model

    def wrap_dataset(self, dataset: Untyped, shard_dataset: bool = True) -> Untyped:  # noqa: ARG002, FBT001, FBT002  (Determined's own signature)
        """Return the dataset unchanged: batches are distributed to the devices when they are read."""
        if not isinstance(dataset, tf.data.Dataset):
            raise InvalidTrialError(
                f"wrap_dataset got a {type(dataset).__name__}, not a tf.data.Dataset",
                hint="wrap only datasets; return arrays and Sequences without wrapping",
            )
        return dataset

    def wrap_optimizer(self, optimizer: Untyped) -> Untyped:
        """Include an optimizer in checkpoints; the one passed to `compile` is always included."""
        self.optimizers.append(optimizer)
        return optimizer

    def configure_fit(  # noqa: PLR0917  (Determined's own signature)
        self,
        verbose: bool | int | None = None,  # noqa: ARG002, FBT001  (there is no progress bar to configure)
        class_weight: Mapping[int, float] | None = None,
        workers: int | None = None,
        use_multiprocessing: bool | None = None,  # noqa: FBT001
        max_queue_size: int | None = None,
        shuffle: bool | None = None,  # noqa: FBT001
        validation_steps: int | None = None,
    ) -> None:
        """Set options of `model.fit`; None leaves an option unchanged.

        Args:
            verbose: has no effect.
            class_weight: weight of each class.
            workers: threads that read a Sequence; 1 does not read ahead.
            use_multiprocessing: has no effect: threads read.
            max_queue_size: batches that several workers prefetch.
            shuffle: shuffle arrays and Sequences in every epoch; default: True.
            validation_steps: batches per validation; default: all.
        """
        if use_multiprocessing:
            _LOG.info(
                "use_multiprocessing has no effect: threads read the data, as TensorFlow must not be forked"
            )
        given = {
            "class_weight": class_weight,
            "workers": workers,
            "max_queue_size": max_queue_size,
            "shuffle": shuffle,
            "validation_steps": validation_steps,
        }
        self.fit = replace(self.fit, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    @property
    def configured_epoch_length(self) -> int | None:
        """Steps per epoch from `records_per_epoch` in the config, if set."""
        records = self._setting.config.get("records_per_epoch")
        if not isinstance(records, int) or records < 1 or self.batch_size is None:
            return None
        return max(1, records // self.batch_size)

    def get_stop_requested(self) -> bool:
        return self._stop_requested or bool(getattr(self.model, "stop_training", False))

    def set_stop_requested(self, stop_requested: bool) -> None:  # noqa: FBT001  (Determined's own signature)
        """Checkpoint and end the trial after this batch."""
        if stop_requested:
            _LOG.info("the trial requested a stop")
        self._stop_requested = stop_requested

    def get_tensorboard_path(self) -> Path:
        return self._setting.tensorboard_dir


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


if TYPE_CHECKING:
    Maker = Callable[..., Untyped]


class Experimental:
    """Decorators for data sets; they are rebuilt in every run, and nothing is cached."""

    def cache_train_dataset(
        self,
        dataset_id: str,  # noqa: ARG002  (Determined's own signature, as all of this)
        dataset_version: str,  # noqa: ARG002
        shuffle: bool = False,  # noqa: FBT001, FBT002
        skip_shuffle_at_epoch_end: bool = False,  # noqa: FBT001, FBT002
    ) -> Callable[[Maker], Maker]:
        """Decorate the function that returns the training data, record by record.

        Args:
            dataset_id: has no effect.
            dataset_version: has no effect.
            shuffle: shuffle all records.
            skip_shuffle_at_epoch_end: use the same order in every epoch.
        """

        def arrange(dataset: Untyped) -> Untyped:
            if not shuffle:
                return dataset
            return dataset.shuffle(_length(dataset), reshuffle_each_iteration=not skip_shuffle_at_epoch_end)

        return lambda make: _arranged(make, arrange)

    def cache_validation_dataset(
        self,
        dataset_id: str,  # noqa: ARG002  (as above)
        dataset_version: str,  # noqa: ARG002
        shuffle: bool = False,  # noqa: ARG002, FBT001, FBT002  (a validation is the same in any order)
    ) -> Callable[[Maker], Maker]:
        """Decorate the function that returns the validation data, record by record."""
        return lambda make: _arranged(make, lambda dataset: dataset)


def _arranged(make: Maker, arrange: Callable[[Untyped], Untyped]) -> Maker:
    @wraps(make)
    def made(*arguments: Untyped, **keywords: Untyped) -> Untyped:
        dataset = make(*arguments, **keywords)
        if not isinstance(dataset, tf.data.Dataset):
            raise InvalidTrialError(
                f"{make.__name__} returned a {type(dataset).__name__}, not a tf.data.Dataset",
                hint="return a tf.data.Dataset from the decorated function",
            )
        return arrange(dataset)

    return made


def _length(dataset: Untyped) -> int:
    """Return the number of records; count them if TensorFlow does not know it."""
    known = int(dataset.cardinality())
    if known < 0:
        known = int(dataset.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1))
    return max(1, known)
