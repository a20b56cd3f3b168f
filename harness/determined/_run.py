"""What a framework's controller may ask of the run it trains in; `determined._chief` answers for all."""

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
    """One run of one trial, as its chief process sees it."""

    info: RunInfo
    group: Group  # the processes of the run; each of them makes the same calls

    def enter(self, stage: Stage) -> None:
        """Say which stage of its life the run is in; a failure after this names that stage."""

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Buffered; costs the training loop no disk access."""

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        """Training metrics of several reports, one or more: batches completed, and metrics."""

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """On disk when it returns."""

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Metrics of another group. Buffered."""

    def report_progress(self, fraction: float) -> None: ...

    def store_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object]
    ) -> AbstractContextManager[tuple[Path, str]]:
        """Give an empty directory to fill and the uuid it will have.

        When the block ends: manifest, sync, rename, then the record. When it raises: nothing is left.
        """

    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> AbstractContextManager[None]:
        """Write a checkpoint that is recorded only if the block raises, or the process dies in it.

        Args:
            steps_completed: batches it stands for.
            metadata: stored with it.
            fill: given an empty directory.
        """

    def open_checkpoint(self) -> tuple[Path, str] | None:
        """The newest undamaged checkpoint of `info.checkpoints` and its uuid; None when there is none.

        Damaged ones are recorded and skipped. Raises CheckpointError when all of them are damaged.
        """

    def should_stop(self) -> bool:
        """Whether the run was asked to checkpoint and leave (SIGTERM); all processes get the same answer."""

    def asked_to_stop(self) -> bool:
        """Whether this very process was asked. Cheap: may be asked after every batch."""

    def barrier(self) -> bool:
        """Whether all processes have come to this point."""
