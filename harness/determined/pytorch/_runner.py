"""Run one PyTorchTrial in the harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import TENSORBOARD_DIR
from determined._run.processes import DistributedContext, Rank
from determined._trial.state import Source, open_source, plan_of, read_numbers
from determined.pytorch import _rng
from determined.pytorch._context import PyTorchTrialContext, Setting
from determined.pytorch._device import choose_device
from determined.pytorch._dialect import open_trial
from determined.pytorch._distributed import process_group
from determined.pytorch._gradients import Aggregation
from determined.pytorch._session import Session
from determined.pytorch._state import same_weights
from determined.pytorch._trial import PyTorchTrial, check_class, check_constructor

if TYPE_CHECKING:
    from determined._contract.run_info import RunInfo
    from determined._run.run import Run


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
    _rng.seed_trial(run.info.trial_seed)
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
