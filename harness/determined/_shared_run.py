"""One run of several processes: rank 0 reports and saves, and all agree on what to do."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from determined._group import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._chief import ChiefRun
    from determined._group import Group
    from determined._records import Stage
    from determined._run_info import RunInfo

_TOGETHER = 10.0  # seconds; a rank that comes later is blocked in a batch


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
