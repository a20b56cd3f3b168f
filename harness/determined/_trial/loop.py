"""The training loop of every framework: trains, reports, validates and checkpoints by a schedule.

Checkpoints may be written by a background thread while training continues. Throughput is measured without
validation and checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from determined._contract.errors import InvalidHP, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._trial.schedule import NEVER, Schedule, Stop, stops

if TYPE_CHECKING:
    from pathlib import Path

    from determined._run.run import Run

GROUP = "throughput"
_SPAN = 10.0  # seconds of training between two reports
Metrics = Mapping[str, object]
_VISIBLE = 0.01  # smallest step of progress that is reported


class BackgroundSaver:
    """One background thread that saves at most one checkpoint at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._after: Callable[[], None] = _nothing

    def start(self, write: Callable[[], None], closing: ExitStack, after: Callable[[], None]) -> None:
        """Start to write in the thread; `finish_pending` calls `after`, in its own thread."""
        self._after = after
        self._writing = self._thread.submit(_write, write, closing)

    @property
    def failed(self) -> bool:
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def finish_pending(self, *, wait: bool) -> None:
        """Raise the thread's error, if any, once it is done; with `wait`, block until then."""
        if self._writing is None or not (wait or self._writing.done()):
            return
        writing, self._writing = self._writing, None
        after, self._after = self._after, _nothing  # it may refer to this object's owner
        writing.result()
        after()

    def close(self) -> None:
        """Wait for the thread without raising its error."""
        self._thread.shutdown()


def _nothing() -> None: ...


def _write(write: Callable[[], None], closing: ExitStack) -> None:
    with closing:
        write()


class Throughput:
    """Counts what was trained since the last report."""

    def __init__(self) -> None:
        self._seconds, self._batches, self._records = 0.0, 0, 0

    def add(self, seconds: float, batches: int, records: int) -> bool:
        """Add a measurement; return whether a report is due."""
        self._seconds += seconds
        self._batches += batches
        self._records += records
        return self._seconds >= _SPAN

    def take(self) -> dict[str, object]:
        """Return the metrics and reset. Records are left out if their number is unknown."""
        metrics: dict[str, object] = {"batches_per_second": self._batches / self._seconds}
        if self._records:
            metrics["records_per_second"] = self._records / self._seconds
        self._seconds, self._batches, self._records = 0.0, 0, 0
        return metrics


@dataclass(frozen=True, slots=True)
class Position:
    """A trial's position in its schedule; saved in checkpoints."""

    steps_completed: int = 0  # batches
    validated: int | None = None  # batches trained before the newest validation


class Trainable(Protocol):
    """A framework's part of a trial: it trains, validates and saves; the loop decides when."""

    @property
    def steps_completed(self) -> int: ...

    @property
    def records_trained(self) -> int:
        """Records of all processes since this run began; 0 if the batch length is unknown."""

    @property
    def stop_requested(self) -> bool:
        """Whether user code asked to end the trial."""

    def train_until(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        """Train until the next of `reports`, a count of completed batches.

        Frequent reports may be collected: training continues past them.

        Args:
            reports: counts of batches, one or more.
            should_stop: called after each batch; training stops there if it returns True.
        """

    def reduce(self) -> Sequence[tuple[int, Metrics]]:
        """Return the reports since the last call: batches completed, and metrics."""

    def reported(self, steps_completed: int, metrics: Metrics) -> None:
        """Handle training metrics after they were reported."""

    def preflight(self) -> Metrics | None:
        """Validate one batch and restore all state; return None if that is not possible.

        Raises:
            InvalidTrialError: validation cannot succeed.
        """

    def evaluate(self) -> Metrics: ...

    def prepare_saving(self) -> None:
        """Prepare for a checkpoint before training ends."""

    def save(
        self, directory: Path, position: Position, *, in_background: bool = False, hooks: bool = True
    ) -> Callable[[], None] | None:
        """Save everything that training needs to continue into an empty directory.

        Args:
            directory: of the checkpoint.
            position: to save.
            in_background: return a function that does the rest in another thread while training continues.
            hooks: call callbacks; otherwise reuse their last saved state.
        """

    def saved(self, uuid: str) -> None:
        """Handle a checkpoint after it became visible."""

    def metadata(self) -> Mapping[str, object]:
        """Return the metadata of the next checkpoint."""


@dataclass(frozen=True, slots=True)
class SavePolicy:
    """Which validations are followed by a checkpoint, in addition to the schedule."""

    name: str  # best, all or none
    metric: str = ""
    smaller_is_better: bool = True

    @classmethod
    def configured(cls, config: Mapping[str, object]) -> SavePolicy:
        searcher = config.get("searcher")
        searcher = searcher if isinstance(searcher, Mapping) else {}
        name, metric = str(config.get("checkpoint_policy", "best")), str(searcher.get("metric") or "")
        smaller = bool(searcher.get("smaller_is_better", True))
        return cls("all", "", smaller) if name == "best" and not metric else cls(name, metric, smaller)

    def value(self, metrics: Metrics) -> float:
        """Return the searcher metric.

        Raises:
            InvalidTrialError: validation did not return it as one number.
        """
        hint = f"return {self.metric} as one number from validation, or set searcher.metric to another metric"
        if self.metric not in metrics:
            raise InvalidTrialError(
                f"searcher.metric is {self.metric!r}, but validation reported only: {_own(metrics)}",
                hint=hint,
            )
        value = metrics[self.metric]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidTrialError(
                f"the searcher metric {self.metric} is not a number: {value!r}", hint=hint
            )
        return float(value)

    def check(self, metrics: Metrics) -> None:
        """Check the metrics of one validated batch; a metric of None is unknown.

        Raises:
            InvalidTrialError: the searcher metric is missing, or not one number.
        """
        if self.metric and metrics.get(self.metric, self) is not None:
            self.value(metrics)

    def better(self, value: float, best: float | None) -> bool:
        """NaN is never better than anything."""
        if best is None or math.isnan(best):
            return not math.isnan(value)
        return value < best if self.smaller_is_better else value > best


def _own(metrics: Metrics) -> str:
    """Return the names of the trial's own metrics."""
    return ", ".join(name for name in metrics if name not in {"batches", "epochs"}) or "(none)"


@dataclass(slots=True)
class Loop:
    """The training loop of one trial.

    Args:
        trial: the framework's part.
        run: receives the results.
        schedule: when to report, validate and checkpoint.
        policy: which validations are saved.
        start: where training continues from.
        preflight: validate one batch before training, unless the trial has validated already.
    """

    trial: Trainable
    run: Run
    schedule: Schedule
    policy: SavePolicy
    start: Position = field(default_factory=Position)
    preflight: bool = False
    _validated: int | None = None
    _saved: Position = field(default_factory=Position)
    _best: float | None = None
    _stage: Stage | None = None
    _reported_progress: float = 0.0  # the progress that was reported last
    _prepared: bool = False
    _throughput: Throughput = field(default_factory=Throughput)
    _saver: BackgroundSaver = field(default_factory=BackgroundSaver)

    def __post_init__(self) -> None:
        self._validated = self.start.validated
        self._saved = self.start
        self._best = self.run.info.best_validation

    def train(self) -> ExitReason:
        """Train to the end of the schedule, or until asked to stop.

        Raises:
            InvalidHP: from user code, after a checkpoint.
        """
        try:
            self._try_validation()
            reason = self._train_or_save()
            self._finish_pending_save(wait=True)
        finally:
            self._saver.close()
        return reason

    def _try_validation(self) -> None:
        """Validate one batch first, since an error in validation would waste all training."""
        begun = self.start.validated is not None or self.start.steps_completed >= self.schedule.max_length
        comes_first = self.schedule.initial_validation and self.start.steps_completed == 0
        if self.preflight and not begun and not comes_first:
            metrics = self.trial.preflight()
            if metrics is not None:
                self.policy.check(metrics)

    def _train_or_save(self) -> ExitReason:
        try:
            return self._train()
        except InvalidHP:
            if self.run.barrier():
                self._save_unless_current()
                self._finish_pending_save(wait=True)
            raise

    def _train(self) -> ExitReason:
        completed, validated = self.start.steps_completed, self.start.validated
        for stop in stops(self.schedule, completed=completed, validated=validated):
            reason = self._reach(stop)
            if reason is not None:
                self._save_unless_current()
                return reason
        return ExitReason.COMPLETED

    def _reach(self, stop: Stop) -> ExitReason | None:
        reports = self.schedule.reports(self.trial.steps_completed, stop.batch)
        while self.trial.steps_completed < stop.batch:
            self._train_to_next(reports)
            if self.trial.steps_completed < stop.batch and (reason := self._reason_to_leave()):
                return reason
        if not self.run.should_stop():
            self._do_what_is_due(stop)
        return self._reason_to_leave()

    def _reason_to_leave(self) -> ExitReason | None:
        if self.trial.stop_requested:
            return ExitReason.STOPPED
        return ExitReason.PREEMPTED if self.run.should_stop() and not self._is_done() else None

    def _is_done(self) -> bool:
        return self._saved == Position(self.schedule.max_length, self.schedule.max_length)

    def _train_to_next(self, reports: Iterator[int]) -> None:
        trial = self.trial
        self._enter(Stage.TRAIN)
        begun, before, records = perf_counter(), trial.steps_completed, trial.records_trained
        try:
            trial.train_until(reports, self.run.asked_to_stop)
        except BaseException:
            with suppress(RuntimeError):  # of a GPU that no longer responds
                self._report(trial.reduce())
            raise
        found, done = trial.reduce(), trial.steps_completed
        due = self._throughput.add(perf_counter() - begun, done - before, trial.records_trained - records)
        self._report(found)
        self._finish_pending_save(wait=False)
        if due or done >= self.schedule.max_length:
            self.run.report_metrics(GROUP, done, self._throughput.take())
        if not self._prepared and self._will_save():
            trial.prepare_saving()
        self._prepared = True
        self._report_progress(min(1.0, done / self.schedule.max_length))

    def _report(self, found: Sequence[tuple[int, Metrics]]) -> None:
        if found:
            self.run.report_windows(found)
        for steps_completed, metrics in found:
            self.trial.reported(steps_completed, metrics)

    def _enter(self, stage: Stage) -> None:
        if stage is not self._stage:
            self._stage = stage
            self.run.enter(stage)

    def _report_progress(self, fraction: float) -> None:
        """Report progress, but skip invisible steps."""
        if fraction >= 1 or fraction - self._reported_progress >= _VISIBLE:
            self._reported_progress = fraction
            self.run.report_progress(fraction)

    def _do_what_is_due(self, stop: Stop) -> None:
        if stop.validate:
            self._validate()
        if stop.checkpoint:
            self._save_unless_current(in_background=True)

    def _validate(self) -> None:
        self._finish_pending_save(wait=True)
        with self._spare_checkpoint():
            self._enter(Stage.VALIDATE)
            metrics = self.trial.evaluate()
            validated = self.trial.steps_completed
            self.run.report_validation(validated, metrics)
            worth_saving = self._worth_saving(metrics)
        self._validated = validated
        if worth_saving:
            self._save_unless_current(in_background=True)

    def _spare_checkpoint(self) -> AbstractContextManager[None]:
        """Save a spare checkpoint before the last validation, whose failure would lose trained batches."""
        position = Position(self.trial.steps_completed, self._validated)
        steps = position.steps_completed
        is_last = steps > 0 and steps >= self.schedule.max_length
        if not is_last or self._saved.steps_completed == steps or self.run.info.test_mode:
            return nullcontext()
        return self.run.spare_checkpoint(
            steps, self.trial.metadata(), lambda path: self.trial.save(path, position, hooks=False)
        )

    def _worth_saving(self, metrics: Metrics) -> bool:
        if self.policy.name != "best":
            return self.policy.name == "all"
        value = self.policy.value(metrics)
        if self.trial.steps_completed == 0 or not self.policy.better(value, self._best):
            return False
        self._best = value
        return True

    def _will_save(self) -> bool:
        """Whether a checkpoint is due while training continues."""
        by_validation = self.schedule.validation != NEVER and self.policy.name != "none"
        return by_validation or self.schedule.checkpoint != NEVER

    def _save_unless_current(self, *, in_background: bool = False) -> None:
        position = Position(self.trial.steps_completed, self._validated)
        if position == self._saved or position.steps_completed == 0:  # an untrained trial need not be saved
            return
        self._finish_pending_save(wait=True)
        self._enter(Stage.CHECKPOINT)
        with ExitStack() as closing:
            storing = self.run.store_checkpoint(position.steps_completed, self.trial.metadata())
            directory, uuid = closing.enter_context(storing)
            on = in_background and position.steps_completed < self.schedule.max_length
            rest = self.trial.save(directory, position, in_background=on)
            if rest is not None:
                self._saver.start(rest, closing.pop_all(), lambda: self.trial.saved(uuid))
        self._saved = position
        if rest is None:
            self.trial.saved(uuid)

    def _finish_pending_save(self, *, wait: bool) -> None:
        """Finish the checkpoint that is saved in the background, if it is done; with `wait`, once it is."""
        if self._saver.failed:
            self._enter(Stage.CHECKPOINT)
        self._saver.finish_pending(wait=wait)
