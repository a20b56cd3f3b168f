"""The plan of one run of a trial, and where it continues from: the same for every framework."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError
from determined._loop import Position, SavePolicy
from determined._records import Stage
from determined._schedule import Schedule, Units, configured, milestones
from determined._trial_state import TrialState, read_numbers
from determined._validation import is_enabled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from determined._run import Run
    from determined._run_info import Length, RunInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a run continues from."""

    directory: Path | None = None
    uuid: str | None = None
    numbers: TrialState | None = None  # None: only the weights are loaded, and counters start at 0

    @property
    def position(self) -> Position:
        return self.numbers.position if self.numbers else Position()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of one run of a trial; its schedule depends on the length of an epoch."""

    schedule: Callable[[Units], Schedule]
    policy: SavePolicy
    seed: int  # of the data, unless the checkpoint has another one
    is_trainer: bool = False
    test_mode: bool = False  # validate one batch only
    preflight: bool = False  # validate one batch before training


def open_source(run: Run) -> Source:
    """Find the checkpoint to resume from."""
    if not run.info.checkpoints:
        return Source()
    run.enter(Stage.RESTORE)
    found = run.open_checkpoint()
    if found is None:
        return Source()
    directory, uuid = found
    return Source(
        directory=directory, uuid=uuid, numbers=None if run.info.warm_start else read_numbers(directory)
    )


def plan_of(info: RunInfo) -> Plan:
    """Return the plan for the experiment config."""
    if info.test_mode:
        policy = SavePolicy.configured(info.config)
        return Plan(schedule=_one_batch, policy=policy, seed=info.trial_seed, test_mode=True)
    length = info.max_length
    if length is None:
        raise InvalidTrialError(
            "the experiment config does not say how long to train",
            hint="set searcher.max_length, e.g. {epochs: 10}",
        )
    policy = SavePolicy.configured(info.config)
    return Plan(
        schedule=lambda units: _asked_for(info, length, units),
        policy=policy,
        seed=info.trial_seed,
        preflight=is_enabled(info.config),
    )


def _asked_for(info: RunInfo, length: Length, units: Units) -> Schedule:
    base = configured(info.config, length, units)
    return replace(base, validation=base.validation.joined(milestones(info, units)))


def _one_batch(_: Units) -> Schedule:
    return Schedule(max_length=1)
