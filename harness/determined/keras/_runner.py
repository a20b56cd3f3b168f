"""Run one TFKerasTrial in the harness: one process, with `tf.distribute` for several devices."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import TENSORBOARD_DIR
from determined._run.outcome import defined_at
from determined._trial.loop import Loop
from determined._trial.schedule import Units
from determined._trial.state import Plan, Source, open_source, plan_of, read_numbers
from determined.keras import _checkpoint
from determined.keras._data import training_feed, validation_arguments
from determined.keras._hooks import Hooks
from determined.keras._preflight import Parts
from determined.keras._tf import eager_only, prepare, tf
from determined.keras._trainable import KerasTrainable
from determined.keras._trial import Setting, TFKerasTrial, TFKerasTrialContext, build_model, check_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined._contract.run_info import RunInfo
    from determined._run.run import Run
    from determined.keras._tf import InputData, Untyped

_LOG = logging.getLogger(__name__)


def run_trial(trial_class: type[TFKerasTrial], run: Run) -> ExitReason:
    """Build, restore and train a trial; in test mode run one batch of each and restore it again.

    Raises:
        InvalidHP: user code rejected its hyperparameters.
        InvalidTrialError: the trial has an error in its code or config.
    """
    check_class(trial_class)
    session = _Session(trial_class, run, open_source(run), plan_of(run.info), _strategy_of(run.info.slots))
    trainable = session.built()
    units = Units(trainable.epoch_length, trainable.context.batch_size)
    try:
        plan = session.plan
        loop = Loop(
            trainable,
            run,
            plan.schedule(units),
            plan.policy,
            session.source.position,
            preflight=plan.preflight,
        )
        reason = loop.train()
    finally:
        trainable.end()
    if run.info.test_mode and reason is ExitReason.COMPLETED:
        _check_restoring(session, trainable.context)
    return reason


def context_of(info: RunInfo) -> TFKerasTrialContext:
    """Return the context of a trial that runs in the harness."""
    return TFKerasTrialContext(
        Setting(
            hparams=info.hparams,
            config=info.config,
            info=info,
            tensorboard_dir=Path(info.run_dir) / TENSORBOARD_DIR,
            replicas=max(1, info.slots),
        )
    )


@dataclass(frozen=True, slots=True)
class _Session:
    """A trial class and everything needed to prepare it for training."""

    trial_class: type[TFKerasTrial]
    run: Run
    source: Source
    plan: Plan
    strategy: Untyped

    def built(self) -> KerasTrainable:
        """Build the trial, its model, data and callbacks, and restore its checkpoint, if any."""
        self.run.enter(Stage.BUILD)
        with eager_only(Path(self.run.info.context_dir).resolve()):
            trainable = self._trainable()
        self._restore(trainable)
        return trainable

    def _trainable(self) -> KerasTrainable:
        prepare(self.run.info.trial_seed)
        context = context_of(self.run.info)
        with self.strategy.scope():
            trial = self.trial_class(context)
        training, validation = trial.build_training_data_loader(), trial.build_validation_data_loader()
        with self.strategy.scope():
            build_model(trial, context, self.run.info.config)
        return KerasTrainable(self._parts(trial, context, training, validation))

    def _parts(
        self, trial: TFKerasTrial, context: TFKerasTrialContext, training: InputData, validation: InputData
    ) -> Parts:
        seed = self.source.numbers.data_seed if self.source.numbers else self.plan.seed
        with _at(trial.build_training_data_loader):
            feed = training_feed(training, context, seed=seed, strategy=self.strategy)
        with _at(trial.build_validation_data_loader):
            arguments = validation_arguments(validation, context, 1 if self.plan.test_mode else None)
        return Parts(
            trial=trial,
            context=context,
            hooks=Hooks(trial.keras_callbacks(), context, feed.epoch_length),
            feed=feed,
            validation=arguments,
            strategy=self.strategy,
            info=self.run.info,
            data_seed=seed,
        )

    def _restore(self, trainable: KerasTrainable) -> None:
        if self.source.directory is None:
            trainable.begin()
            return
        self.run.enter(Stage.RESTORE)
        with self.strategy.scope():
            if self.source.numbers is None:
                trainable.take_weights(self.source.directory)
            else:
                trainable.restore(self.source.directory, self.source.position)


@contextmanager
def _at(method: Callable[..., object]) -> Iterator[None]:
    """Prefix errors about the returned data with the location of the user's method."""
    try:
        yield
    except InvalidTrialError as error:
        raise InvalidTrialError(f"{defined_at(method)}: {error}", hint=error.hint) from error


def _check_restoring(session: _Session, trained: TFKerasTrialContext) -> None:
    run = session.run
    run.enter(Stage.RESTORE)
    found = run.open_checkpoint()
    if found is None:
        raise CheckpointError(
            "the test's checkpoint was deleted", hint="do not change checkpoint storage during the test"
        )
    directory, uuid = found
    source = Source(directory=directory, uuid=uuid, numbers=read_numbers(directory))
    again = _Session(session.trial_class, run, source, session.plan, session.strategy)
    if not _checkpoint.same(trained, again.built().context):
        raise InvalidTrialError(
            "the weights restored from the test's checkpoint differ from the saved ones",
            hint="keep all weights in the model given to context.wrap_model, and change none while loading",
        )


def _strategy_of(slots: int) -> Untyped:
    """Return the distribution strategy of a run with `slots` slots.

    One process uses all devices (MirroredStrategy), the only strategy of Keras 3 with TensorFlow. Without
    GPUs the CPU is split into that number of devices.

    Raises:
        InvalidTrialError: there are fewer devices than slots.
    """
    # listing logical devices would initialize them, and the CPU could no longer be split
    has_gpu = bool(slots and tf.config.list_physical_devices("GPU"))
    if slots <= 1:
        if slots and not has_gpu:
            _LOG.warning("TensorFlow sees no GPU: training on the CPU")
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") if has_gpu else _split_cpu(slots)
    if len(devices) < slots:
        raise InvalidTrialError(
            f"resources.slots_per_trial is {slots}, but TensorFlow sees {len(devices)} devices",
            hint="lower resources.slots_per_trial",
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices[:slots]])


def _split_cpu(slots: int) -> list[Untyped]:
    """Split the CPU into devices, unless TensorFlow has already initialized it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    _LOG.warning("TensorFlow sees no GPU: training on the CPU as %d devices", slots)
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * slots)
    except RuntimeError:
        _LOG.debug("the CPU is already initialized and cannot be split")
    return list(tf.config.list_logical_devices("CPU"))
