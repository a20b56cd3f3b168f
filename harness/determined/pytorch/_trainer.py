"""Train a PyTorchTrial: from a script with `pytorch.init()` and `Trainer.fit`, or as a run in the harness."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from determined._contract import checkpoints
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import TENSORBOARD_DIR, Length, RunInfo
from determined._run.processes import DistributedContext, Rank
from determined._run.script import RunHandle, RunOptions, script_run
from determined._trial.loop import SavePolicy
from determined._trial.schedule import Period, Schedule, Units, configured, milestones
from determined._trial.state import Plan, Source, open_source, plan_of, read_numbers
from determined._trial.validation import is_enabled
from determined.pytorch._checkpoint import same_weights
from determined.pytorch._context import Aggregation, PyTorchTrialContext, Setting
from determined.pytorch._device import choose_device, process_group, seed_trial
from determined.pytorch._trainable import Session
from determined.pytorch._trial import PyTorchTrial, check_class, check_constructor, open_trial

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from determined._run.run import Run

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainUnit:
    """A training length or period; a collection lists exact positions."""

    value: int | Collection[int]

    def __post_init__(self) -> None:
        at = [self.value] if isinstance(self.value, int) else self.value
        if isinstance(at, str) or not isinstance(at, Collection) or not all(isinstance(n, int) for n in at):
            raise InvalidTrialError(
                f"{self!r} is not a whole number",
                hint=f"write {type(self).__name__}(100), or {type(self).__name__}([10, 100])",
            )

    def period(self, units: Units, field: str) -> Period:
        """Convert to batches; an integer below 1 is due after each batch."""
        if isinstance(self.value, int):
            return Period(self._batches(max(1, self.value), units, field) if self.value > 0 else 1)
        return Period(at=tuple(sorted({self._batches(at, units, field) for at in self.value})))

    def length(self, units: Units, field: str) -> int:
        if not isinstance(self.value, int) or self.value < 1:
            raise InvalidTrialError(
                f"{field} is {self!r}", hint=f"set it to a whole number, e.g. {type(self).__name__}(100)"
            )
        return self._batches(self.value, units, field)

    def _batches(self, count: int, units: Units, field: str) -> int:
        return units.batches(Length("batches", count), field)


class Batch(TrainUnit):
    """A length or period in batches."""


class Epoch(TrainUnit):
    """A length or period in epochs."""

    def _batches(self, count: int, units: Units, field: str) -> int:
        return units.batches(Length("epochs", count), field)


class _TrainerContext(PyTorchTrialContext):
    """The context of a script, with the run that it trains in."""

    def __init__(self, setting: Setting, handle: RunHandle, source: Source) -> None:
        super().__init__(setting)
        self.handle, self.source = handle, source


@contextmanager
def init(
    *,
    hparams: Mapping[str, object] | None = None,
    exp_conf: Mapping[str, object] | None = None,
    distributed: DistributedContext | None = None,
    aggregation_frequency: int = 1,
    enable_tensorboard_logging: bool = True,
) -> Iterator[PyTorchTrialContext]:
    """Create the context of a trial that a script trains.

    In a detbuild run, hyperparameters and config default to those of the experiment, and all generators are
    seeded with the trial's seed. Outside a run the script sets its own seeds.

    Args:
        hparams: hyperparameters.
        exp_conf: the experiment config.
        distributed: the processes of the trial; None uses those started by a launcher.
        aggregation_frequency: batches per optimizer step.
        enable_tensorboard_logging: write metrics as TensorBoard event files.
    """
    run_options = RunOptions(
        hparams=hparams or {},
        config=exp_conf or {},
        distributed=distributed,
        seed=torch.initial_seed(),  # outside a run the script sets its own seeds
        slots=int(torch.cuda.is_available()),
    )
    with script_run(run_options) as handle:
        device = choose_device(handle.info.slots, handle.distributed)
        with process_group(handle.distributed.group, device):
            context = _context(handle, device, hparams, exp_conf, aggregation_frequency)
            context.set_enable_tensorboard_logging(enable_tensorboard_logging)
            yield context
        handle.reason = handle.reason or ExitReason.COMPLETED


def _context(
    handle: RunHandle,
    device: torch.device,
    hparams: Mapping[str, object] | None,
    exp_conf: Mapping[str, object] | None,
    aggregation_frequency: int,
) -> _TrainerContext:
    info = handle.info
    if handle.supervised:
        seed_trial(info.trial_seed)
    source = open_source(handle.run)
    setting = Setting(
        device=device,
        hparams=hparams if hparams is not None or not handle.supervised else info.hparams,
        config=exp_conf if exp_conf is not None or not handle.supervised else info.config,
        info=info if handle.supervised else None,
        tensorboard_dir=Path(info.run_dir) / TENSORBOARD_DIR,
        aggregation=Aggregation(aggregation_frequency),
        initial_batch=source.position.steps_completed,
        distributed=handle.distributed,
    )
    return _TrainerContext(setting, handle, source)


class Trainer:
    """Trains a trial that a script created.

    Args:
        trial: created with the context.
        context: from `pytorch.init`.
    """

    def __init__(self, trial: PyTorchTrial, context: PyTorchTrialContext) -> None:
        if not isinstance(context, _TrainerContext):
            raise InvalidTrialError(
                "Trainer got a context that is not from pytorch.init",
                hint="use `with pytorch.init() as context:`",
            )
        if not isinstance(trial, PyTorchTrial):
            what = trial.__name__ if isinstance(trial, type) else type(trial).__name__
            raise InvalidTrialError(
                f"Trainer got {what}, not an instance of PyTorchTrial",
                hint="create it inside the block: trial = MyTrial(context)",
            )
        self._trial, self._context = trial, context

    def configure_profiler(self, **_options: object) -> None:
        """Do nothing: accepted for compatibility, system metrics are not sampled."""
        _LOG.info(
            "configure_profiler has no effect: use context.set_profiler for torch's profiler, and "
            "`docker stats` and `nvidia-smi` on the host"
        )

    def fit(  # noqa: PLR0913, PLR0917  (Determined's own signature)
        self,
        checkpoint_period: TrainUnit | None = None,
        validation_period: TrainUnit | None = None,
        max_length: TrainUnit | None = None,
        reporting_period: TrainUnit | None = None,
        checkpoint_policy: str = "best",
        latest_checkpoint: str | os.PathLike[str] | None = None,
        step_zero_validation: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        test_mode: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        profiling_enabled: bool = False,  # noqa: ARG002, FBT001, FBT002  (Determined's own signature)
        *,
        preflight_validation: bool = True,
    ) -> None:
        """Train, validate and checkpoint.

        Args:
            checkpoint_period: None checkpoints only at the end.
            validation_period: None validates only at the end.
            max_length: None uses `searcher.max_length` in a run; outside a run it is required.
            reporting_period: of training metrics; default: 100 batches.
            checkpoint_policy: best, all or none; outside a run best means all.
            latest_checkpoint: UUID or directory of a checkpoint to continue from. A resumed run uses
                its own newest one; from another trial's checkpoint only the weights are loaded.
            step_zero_validation: validate before training.
            test_mode: train one batch, validate one, checkpoint once.
            profiling_enabled: has no effect.
            preflight_validation: validate one batch before training, then restore all state.
        """
        context, run = self._context, self._context.handle.run
        check_class(type(self._trial))
        if test_mode and context.handle.supervised:
            raise InvalidTrialError(
                "fit got test_mode=True in a run", hint="submit the experiment with --test instead"
            )
        test_mode = test_mode or run.info.test_mode
        options = _TrainerOptions(
            max_length, reporting_period, validation_period, checkpoint_period, step_zero_validation
        )
        plan = Plan(
            schedule=(lambda _: Schedule(max_length=1))
            if test_mode
            else (lambda units: options.schedule(run.info, units)),
            policy=_policy(context.handle, checkpoint_policy),
            seed=run.info.trial_seed,
            is_trainer=True,
            preflight=not test_mode and preflight_validation and is_enabled(run.info.config),
            test_mode=test_mode,
        )
        source = context.source
        if latest_checkpoint and source.directory is None:
            source = _source_at(latest_checkpoint, context.handle)
            context.initial_batch = source.position.steps_completed
        session = Session(trial=self._trial, context=context, run=run, plan=plan, source=source)
        context.handle.reason = session.train()


@dataclass(frozen=True, slots=True)
class _TrainerOptions:
    """The arguments of `fit`; None defaults to the experiment config."""

    max_length: TrainUnit | None
    report: TrainUnit | None
    validation: TrainUnit | None
    checkpoint: TrainUnit | None
    initial_validation: bool

    def __post_init__(self) -> None:
        named = {
            "max_length": self.max_length,
            "reporting_period": self.report,
            "validation_period": self.validation,
            "checkpoint_period": self.checkpoint,
        }
        for name, given in named.items():
            if given is not None and not isinstance(given, TrainUnit):
                raise InvalidTrialError(
                    f"fit got {name}={given!r}, which has no unit",
                    hint=f"write {name}=pytorch.Batch(100), or pytorch.Epoch(1)",
                )

    def schedule(self, info: RunInfo, units: Units) -> Schedule:
        length = self._length(info, units)
        base = configured(info.config, Length("batches", length), units)
        validation = _period(self.validation, base.validation, units, "validation_period")
        return replace(
            base,
            report=_period(self.report, base.report, units, "reporting_period"),
            validation=validation.joined(milestones(info, units)),
            checkpoint=_period(self.checkpoint, base.checkpoint, units, "checkpoint_period"),
            initial_validation=self.initial_validation or base.initial_validation,
        )

    def _length(self, info: RunInfo, units: Units) -> int:
        if self.max_length is not None:
            return self.max_length.length(units, "max_length")
        if info.max_length is not None:
            return units.batches(info.max_length, "searcher.max_length")
        raise InvalidTrialError("fit got no max_length", hint="pass e.g. max_length=pytorch.Epoch(10)")


def _period(given: TrainUnit | None, configured_period: Period, units: Units, field: str) -> Period:
    return given.period(units, field) if given is not None else configured_period


def _policy(handle: RunHandle, name: str) -> SavePolicy:
    if name not in {"best", "all", "none"}:
        raise InvalidTrialError(f"checkpoint_policy is {name!r}", hint="set it to best, all or none")
    return SavePolicy.configured({**handle.run.info.config, "checkpoint_policy": name})


def _source_at(reference: str | os.PathLike[str], handle: RunHandle) -> Source:
    root = Path(handle.info.checkpoint_dir)
    others = [] if handle.supervised else sorted(root.parent.parent.glob(f"*/{root.name}"))
    directory = checkpoints.located(reference, root, *others)
    problems = checkpoints.verify(directory)
    if problems:
        raise CheckpointError(
            f"{directory} is not a complete checkpoint: {'; '.join(problems[:3])}",
            hint="pass the directory of a checkpoint as latest_checkpoint",
        )
    numbers = read_numbers(directory)
    own = not handle.supervised or numbers.trial_id == handle.info.trial_id
    return Source(directory=directory, uuid=directory.name, numbers=numbers if own else None)


def run_trial(trial_class: type[PyTorchTrial], run: Run) -> ExitReason:
    """Build, restore and train a trial; in test mode run one batch of each and restore it again.

    Raises:
        InvalidHP: user code rejected its hyperparameters.
        InvalidTrialError: the trial has an error in its code or config.
    """
    check_class(trial_class)
    check_constructor(trial_class)
    device = choose_device(run.info.slots, _ranks(run))
    with process_group(run.group, device):
        source = open_source(run)
        session = _session(trial_class, run, source)
        reason = session.train()
        if run.info.test_mode and reason is ExitReason.COMPLETED:
            _check_restoring(trial_class, run, session.context)
    return reason


def context_of(
    info: RunInfo, initial_batch: int = 0, distributed: DistributedContext | None = None
) -> PyTorchTrialContext:
    """Return the context of a trial that runs in the harness."""
    distributed = distributed or DistributedContext.alone()
    setting = Setting(
        device=choose_device(info.slots, distributed),
        hparams=info.hparams,
        config=info.config,
        info=info,
        tensorboard_dir=Path(info.run_dir) / TENSORBOARD_DIR,
        aggregation=_aggregation(info.config),
        initial_batch=initial_batch,
        distributed=distributed,
    )
    return PyTorchTrialContext(setting)


def _session(trial_class: type[PyTorchTrial], run: Run, source: Source) -> Session:
    run.enter(Stage.BUILD)
    seed_trial(run.info.trial_seed)
    context = context_of(run.info, source.position.steps_completed, _ranks(run))
    plan = plan_of(run.info)
    return Session(trial=trial_class(context), context=context, run=run, plan=plan, source=source)


def _ranks(run: Run) -> DistributedContext:
    """Return the processes of the run, all on one host."""
    group = run.group
    rank = Rank(rank=group.rank, size=group.size, local_rank=group.rank, local_size=group.size)
    return DistributedContext.of(rank, group)


def _check_restoring(trial_class: type[PyTorchTrial], run: Run, trained: PyTorchTrialContext) -> None:
    run.enter(Stage.RESTORE)
    found = run.open_checkpoint()
    if found is None:
        raise CheckpointError(
            "the test's checkpoint was deleted", hint="do not change checkpoint storage during the test"
        )
    directory, uuid = found
    source = Source(directory=directory, uuid=uuid, numbers=read_numbers(directory))
    session = _session(trial_class, run, source)
    session.restored(*open_trial(session.trial, session.context))
    if not same_weights(trained, session.context):
        raise InvalidTrialError(
            "the weights restored from the test's checkpoint differ from the saved ones",
            hint="keep all weights in models given to context.wrap_model, and change none while loading",
        )


def _aggregation(config: Mapping[str, object]) -> Aggregation:
    section = config.get("optimizations")
    options = section if isinstance(section, Mapping) else {}
    frequency = options.get("aggregation_frequency", 1)
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise InvalidTrialError(
            f"optimizations.aggregation_frequency is {frequency!r}",
            hint="set it to a whole number of 1 or more",
        )
    return Aggregation(frequency, bool(options.get("average_aggregated_gradients", True)))
