"""The progress of a trial over all of its runs.

A run that starts from a checkpoint repeats the batches that earlier runs trained after it. Their reports of
these batches are superseded, so that no batch is counted twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.store.runs import RunRecords
from detbuild.store.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from determined._records import Checkpoint, Stage, Training, Validation


@dataclass(frozen=True, slots=True)
class Goal:
    """The searcher's metric and its direction."""

    metric: str = ""
    smaller_is_better: bool = True

    def value(self, validation: Validation) -> float | None:
        """Return the metric of a validation; None if it is absent or not a number."""
        found = validation.metrics.get(self.metric)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return None
        try:
            value = float(found)
        except OverflowError:  # an integer beyond what a float holds
            return None
        return None if math.isnan(value) else value

    def best(self, validations: Sequence[Validation]) -> Validation | None:
        """Return the best validation, the earliest of equal ones."""
        sign = 1 if self.smaller_is_better else -1
        ranked = [
            (sign * value, i) for i, v in enumerate(validations) if (value := self.value(v)) is not None
        ]
        return validations[min(ranked)[1]] if ranked else None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    uuid: str
    run: int
    steps_completed: int
    size: int  # bytes
    files: int
    state: str  # COMPLETED, PARTIALLY_DELETED, DELETED, or ERROR if it was found damaged or missing
    uploaded: bool = False  # complete in the cloud
    foreign: str = ""  # why it belongs to another experiment, although a run reported it
    validation: Validation | None = None  # at the same batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    steps_completed: int = 0
    fraction: float | None = None
    stage: Stage | None = None
    best: Validation | None = None
    validations: tuple[Validation, ...] = ()
    training: Training | None = None  # the newest
    checkpoints: tuple[CheckpointState, ...] = ()  # newest first
    set_aside: int = 0


_NOTHING_STORED = Stored()


def trial_progress(runs: Sequence[RunRecords], goal: Goal, stored: Stored = _NOTHING_STORED) -> Progress:
    """Combine the records of all runs of a trial; `runs[0]` is run 0."""
    last_own = limits(runs)
    validations = tuple(
        v
        for run, limit in zip(runs, last_own, strict=True)
        for v in run.validations
        if v.steps_completed <= limit
    )
    last = runs[-1] if runs else RunRecords()
    steps = [
        n
        for run, limit in zip(runs, last_own, strict=True)
        if (n := run.steps_completed) is not None and n <= limit
    ]
    return Progress(
        steps_completed=steps[-1] if steps else 0,
        fraction=last.fraction,
        stage=last.stage,
        best=goal.best(validations),
        validations=validations,
        training=next((run.training for run in reversed(runs) if run.training), None),
        checkpoints=_checkpoints(runs, validations, stored),
        set_aside=sum(run.set_aside for run in runs),
    )


def _starts(runs: Sequence[RunRecords]) -> list[float]:
    """Return the batch that each run started from; infinity for a run that did not start training."""
    own: set[str] = set()
    starts = []
    for run in runs:
        if run.restored is not None and run.restored.uuid in own:
            starts.append(float(run.restored.steps_completed))
        else:  # from the beginning, or from the weights of another trial, which counts as the beginning
            starts.append(0.0 if run.trained or run.restored else math.inf)
        own |= {checkpoint.uuid for checkpoint in run.checkpoints}
    return starts


def limits(runs: Sequence[RunRecords]) -> list[float]:
    """Return for each run the last batch that no later run repeated."""
    found = []
    limit = math.inf
    for start in reversed(_starts(runs)):
        found.append(limit)
        limit = min(limit, start)
    return found[::-1]


def _checkpoints(
    runs: Sequence[RunRecords], validations: Sequence[Validation], stored: Stored
) -> tuple[CheckpointState, ...]:
    rejected = {r.uuid for run in runs for r in run.rejected}
    by_steps = {v.steps_completed: v for v in validations}
    found = [
        _checkpoint(c, number, by_steps, stored.state(c.uuid, damaged=c.uuid in rejected), stored)
        for number, run in enumerate(runs)
        for c in run.checkpoints
    ]
    return tuple(reversed(found))


def _checkpoint(
    checkpoint: Checkpoint, run: int, validations: Mapping[int, Validation], state: str, stored: Stored
) -> CheckpointState:
    left = stored.left(checkpoint)
    return CheckpointState(
        uuid=checkpoint.uuid,
        run=run,
        steps_completed=checkpoint.steps_completed,
        size=sum(left.values()),
        files=len(left),
        state=state,
        uploaded=checkpoint.uuid in stored.uploaded,
        foreign=stored.foreign.get(checkpoint.uuid, ""),
        validation=validations.get(checkpoint.steps_completed),
    )
