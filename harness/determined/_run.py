"""The interface of a run to a framework's controller; `determined._chief` implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from determined._group import Group
    from determined._records import Stage
    from determined._run_info import RunInfo


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
