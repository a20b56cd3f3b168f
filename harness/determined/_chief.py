"""The run in its chief process: `determined._run.Run`, with records in the run folder."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from determined import _checkpoints
from determined._errors import InvalidHP
from determined._event_file import EventFile
from determined._group import Alone
from determined._metric_values import LeftOut
from determined._records import (
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
from determined._run_info import EVENTS_FILE, SPARE_FILE, RunInfo
from determined._spare import encode_spare
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._group import Group

_TEXTS = frozenset({str})
_PLAIN = frozenset({int, float, bool, type(None)})
_WHOLE = 1 << 62  # larger values take the slow path


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
        _checkpoints.prepare(self._checkpoint_dir)

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
        with _checkpoints.store(self._checkpoint_dir, described) as (path, uuid):
            yield path, uuid
        files = _checkpoints.resources(self._checkpoint_dir / uuid)
        self._events.append(Checkpoint(uuid, steps_completed, files, described))
        self._stored.insert(0, uuid)

    @contextmanager
    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> Iterator[None]:
        described = {"determined_version": __version__, **metadata, "steps_completed": steps_completed}
        with _checkpoints.spare(self._checkpoint_dir, described, fill) as (draft, uuid):
            checkpoint = Checkpoint(uuid, steps_completed, _checkpoints.resources(draft), described)
            note = Path(self.info.run_dir) / SPARE_FILE
            note.write_bytes(encode_spare(draft, checkpoint))
            try:
                yield
            except InvalidHP:
                raise
            except BaseException:
                _checkpoints.publish(draft, uuid)
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
        uuid, rejected = _checkpoints.first_whole(
            self._checkpoint_dir, candidates, unsealed=self.info.warm_start
        )
        for name, why in rejected.items():
            self._events.append(CheckpointRejected(name, why))
        path = self._checkpoint_dir / uuid
        fresh = self.info.warm_start and uuid not in self._stored
        self._events.append(Restored(uuid, 0 if fresh else _checkpoints.steps_completed(path)))
        return path, uuid

    def restored(self, uuid: str) -> None:
        """Record that a script continues from one of the experiment's checkpoints."""
        self._events.append(Restored(uuid, _checkpoints.steps_completed(self._checkpoint_dir / uuid)))

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
