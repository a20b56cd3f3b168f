"""TFKerasTrialContext: wrapping, hyperparameters, fit options, and stop requests."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined._run.processes import DistributedContext
from determined._trial.context import HparamAccess
from determined.keras._experimental import Experimental
from determined.keras._tf import keras, tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from determined._contract.run_info import RunInfo
    from determined.keras._types import Untyped

_LOG = logging.getLogger(__name__)


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
