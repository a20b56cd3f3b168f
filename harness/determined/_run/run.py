"""A run, as a framework's controller sees it: it reports metrics, stores checkpoints and may be stopped.

`ChiefRun` writes the records in the run folder. In a `SharedRun` of several processes rank 0 reports and
saves, and all agree on what to do.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.errors import InvalidHP
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Training,
    Validation,
)
from determined._contract.run_info import EVENTS_FILE, SPARE_FILE, RunInfo
from determined._run.events import EventFile, encode_spare
from determined._run.metric_values import LeftOut
from determined._run.processes import Alone, GroupError
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from determined._run.processes import Group

_TEXTS = frozenset({str})
_PLAIN = frozenset({int, float, bool, type(None)})
_WHOLE = 1 << 62  # larger values take the slow path
_TOGETHER = 10.0  # seconds; a rank that comes later is blocked in a batch


class Run(Protocol):
    """One run of one trial, in its chief process."""

    info: RunInfo
    group: Group  # the processes of the run; all of them make the same calls

    def enter(self, stage: Stage) -> None:
        """Set the stage of the run; a later failure records it."""

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report training metrics. Buffered, so that the training loop does not wait for the disk."""

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        """Report training metrics, each with the batches completed."""

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report validation metrics; they are on disk when this returns."""

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report metrics of another group. Buffered."""

    def report_progress(self, fraction: float) -> None: ...

    def store_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object]
    ) -> AbstractContextManager[tuple[Path, str]]:
        """Yield an empty directory to fill and its future UUID.

        After the block: manifest, sync, rename, then the record. If it raises, nothing remains.
        """

    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> AbstractContextManager[None]:
        """Write a checkpoint that is recorded only if the block raises, or the process dies in it.

        Args:
            steps_completed: batches trained before it.
            metadata: stored with it.
            fill: called with an empty directory.
        """

    def open_checkpoint(self) -> tuple[Path, str] | None:
        """Return the newest undamaged checkpoint of `info.checkpoints` and its UUID; None without any.

        Damaged ones are recorded and skipped. Raises CheckpointError if all of them are damaged.
        """

    def should_stop(self) -> bool:
        """Whether the run was asked to checkpoint and exit (SIGTERM); all processes get the same answer."""

    def asked_to_stop(self) -> bool:
        """Whether this process was asked to stop. Cheap: can be called after every batch."""

    def barrier(self) -> bool:
        """Wait for all processes at this point; return False if one does not come in time."""


class ChiefRun:
    """A run with an open event file. Satisfies the `Run` protocol."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.group: Group = Alone()
        self.stage: Stage | None = None
        self._checkpoint_dir = Path(info.checkpoint_dir)
        self._events = EventFile(Path(info.run_dir) / EVENTS_FILE, info.name)
        self._stored: list[str] = []  # newest first
        self._stop_asked = False
        self._left_out: dict[str, LeftOut] = {}
        contract_checkpoints.prepare(self._checkpoint_dir)

    def enter(self, stage: Stage) -> None:
        self.stage = stage
        self._events.append(StageEntered(stage))

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        self._events.append(Training(steps_completed, self._plain(metrics, "training")))

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        self._events.extend([Training(steps, self._plain(metrics, "training")) for steps, metrics in found])

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        self._events.append(Validation(steps_completed, self._plain(metrics, "validation")))

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        self._events.append(Measured(group, steps_completed, self._plain(metrics, group)))

    def report_progress(self, fraction: float) -> None:
        self._events.append(Progress(fraction))

    @contextmanager
    def store_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object]
    ) -> Iterator[tuple[Path, str]]:
        described = {"determined_version": __version__, **metadata, "steps_completed": steps_completed}
        with contract_checkpoints.store(self._checkpoint_dir, described) as (path, uuid):
            yield path, uuid
        files = contract_checkpoints.resources(self._checkpoint_dir / uuid)
        self._events.append(Checkpoint(uuid, steps_completed, files, described))
        self._stored.insert(0, uuid)

    @contextmanager
    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> Iterator[None]:
        described = {"determined_version": __version__, **metadata, "steps_completed": steps_completed}
        with contract_checkpoints.spare(self._checkpoint_dir, described, fill) as (draft, uuid):
            checkpoint = Checkpoint(uuid, steps_completed, contract_checkpoints.resources(draft), described)
            note = Path(self.info.run_dir) / SPARE_FILE
            note.write_bytes(encode_spare(draft, checkpoint))
            try:
                yield
            except InvalidHP:
                raise
            except BaseException:
                contract_checkpoints.publish(draft, uuid)
                self._events.append(checkpoint)
                self._stored.insert(0, uuid)
                raise
            finally:
                note.unlink(missing_ok=True)

    def open_checkpoint(self) -> tuple[Path, str] | None:
        """Return the newest undamaged one of this run's own checkpoints and `info.checkpoints`."""
        candidates = [*self._stored, *self.info.checkpoints]
        if not candidates:
            return None
        uuid, rejected = contract_checkpoints.first_whole(
            self._checkpoint_dir, candidates, unsealed=self.info.warm_start
        )
        for name, why in rejected.items():
            self._events.append(CheckpointRejected(name, why))
        path = self._checkpoint_dir / uuid
        fresh = self.info.warm_start and uuid not in self._stored
        self._events.append(Restored(uuid, 0 if fresh else contract_checkpoints.steps_completed(path)))
        return path, uuid

    def restored(self, uuid: str) -> None:
        """Record that a script continues from one of the experiment's checkpoints."""
        self._events.append(Restored(uuid, contract_checkpoints.steps_completed(self._checkpoint_dir / uuid)))

    def should_stop(self) -> bool:
        return self._stop_asked

    def asked_to_stop(self) -> bool:
        return self._stop_asked

    def ask_to_stop(self) -> None:
        """Ask the run to finish its batch, checkpoint and exit. Safe in a signal handler."""
        self._stop_asked = True

    def barrier(self) -> bool:
        return True

    def end(self, ended: Ended) -> None:
        """Write the last record and close the file."""
        try:
            self._events.append(ended)
        finally:
            self._events.close()

    def _plain(self, metrics: Mapping[str, object], group: str) -> dict[str, object]:
        """Convert metrics to JSON types: tensors and arrays become numbers and lists."""
        values = metrics.values()
        if (
            _PLAIN.issuperset(map(type, values))
            and _TEXTS.issuperset(map(type, metrics))
            and all(-_WHOLE < value < _WHOLE for value in values if type(value) is int)
        ):
            return dict(metrics)  # the common case
        return self._left_out.setdefault(group, LeftOut(group)).written(metrics)

    def close(self) -> None:
        """Close the file; another process writes the last record."""
        self._events.close()


class SharedRun:
    """Satisfies the `Run` protocol on every rank.

    Args:
        info: of the run.
        group: its processes.
        chief: the run itself, on rank 0.
    """

    def __init__(self, info: RunInfo, group: Group, chief: ChiefRun | None) -> None:
        self.info, self.group = info, group
        self.stage: Stage | None = None
        self._chief = chief

    def enter(self, stage: Stage) -> None:
        self.stage = stage
        if self._chief:
            self._chief.enter(stage)

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        if self._chief:
            self._chief.report_training(steps_completed, metrics)

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        if self._chief:
            self._chief.report_windows(found)

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        if self._chief:
            self._chief.report_validation(steps_completed, metrics)

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        if self._chief:
            self._chief.report_metrics(group, steps_completed, metrics)

    def report_progress(self, fraction: float) -> None:
        if self._chief:
            self._chief.report_progress(fraction)

    @contextmanager
    def store_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object]
    ) -> Iterator[tuple[Path, str]]:
        """Let all ranks fill the same directory, each with its own files."""
        if self._chief is None:
            path, uuid = self.group.broadcast(("", ""))
            yield Path(path), uuid
            self.group.gather(None)
        else:
            with self._chief.store_checkpoint(steps_completed, metadata) as (draft, uuid):
                self.group.broadcast((str(draft), uuid))
                yield draft, uuid
                self.group.gather(None)  # all have written
        self.group.broadcast(None)  # it is visible

    @contextmanager
    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> Iterator[None]:
        """Let all ranks fill it; then only rank 0 decides, so that it does not depend on failed ranks."""
        if self._chief is None:
            fill(Path(self.group.broadcast("")))
            self.group.gather(None)
            yield
            return

        def fill_together(draft: Path) -> None:
            self.group.broadcast(str(draft))
            fill(draft)
            self.group.gather(None)  # all have written

        with self._chief.spare_checkpoint(steps_completed, metadata, fill_together):
            yield

    def open_checkpoint(self) -> tuple[Path, str] | None:
        return self.group.broadcast(self._chief.open_checkpoint() if self._chief else None)

    def should_stop(self) -> bool:
        """Return rank 0's answer. Needs communication, so do not call it for every batch: see `_lockstep`."""
        return self.group.broadcast(self.asked_to_stop())

    def asked_to_stop(self) -> bool:
        """Whether this process was asked to stop; the others may not know yet. Cheap."""
        return self._chief.should_stop() if self._chief else False

    def barrier(self) -> bool:
        """Wait for all ranks at this point; return False if one is blocked in a batch."""
        try:
            self.group.allgather(None, timeout=_TOGETHER)
        except GroupError:
            return False
        return True
