"""`core_context.train`: the reports of a script."""

from __future__ import annotations

import enum
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.records import ExitReason
from determined._contract.run_info import TENSORBOARD_DIR
from determined._trial.loop import SavePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from determined._run.script import RunHandle

_LOG = logging.getLogger("determined.core")
_METADATA_FILE = "metadata.json"


class EarlyExitReason(enum.Enum):
    """Why a script ends early."""

    INVALID_HP = "INVALID_HP"
    USER_REQUESTED_STOP = "USER_REQUESTED_STOP"


_REASONS = {
    EarlyExitReason.INVALID_HP: ExitReason.INVALID_HP,
    EarlyExitReason.USER_REQUESTED_STOP: ExitReason.STOPPED,
}


class TrainContext:
    """Reports of rank 0; the calls of other ranks do nothing."""

    def __init__(self, handle: RunHandle) -> None:
        self._handle, self._chief = handle, handle.chief
        self._best = handle.info.best_validation

    def report_training_metrics(
        self,
        steps_completed: int,
        metrics: Mapping[str, object],
        batch_metrics: Sequence[Mapping[str, object]] | None = None,  # noqa: ARG002  (no one reads them one by one)
    ) -> None:
        """Report training metrics, averaged by the script."""
        if self._chief:
            self._chief.report_training(_steps(steps_completed), metrics)

    def report_validation_metrics(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report validation metrics; they are on disk when this returns."""
        if self._chief:
            self._chief.report_validation(_steps(steps_completed), metrics)
            self._note(metrics)

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report metrics of a group: "training", "validation", or the script's own."""
        if group == "training":
            self.report_training_metrics(steps_completed, metrics)
        elif group == "validation":
            self.report_validation_metrics(steps_completed, metrics)
        elif self._chief:
            self._chief.report_metrics(group, _steps(steps_completed), metrics)

    def report_progress(self, progress: float) -> None:
        """Report the progress of the training.

        Args:
            progress: 0 to 1.

        Raises:
            ValueError: out of range.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"report_progress got {progress!r}, expected 0 to 1")
        if self._chief:
            self._chief.report_progress(float(progress))

    def report_early_exit(self, reason: EarlyExitReason) -> None:
        """Report why the script is about to end."""
        self._handle.reason = _REASONS[reason]

    def set_status(self, status: str) -> None:
        if self._chief:
            _LOG.info("status: %s", status)

    def set_metadata(self, metadata: Mapping[str, object]) -> None:
        """Store metadata of the run in its folder, as JSON."""
        if self._chief:
            self._metadata_file.write_text(json.dumps(dict(metadata), indent=2), encoding="utf-8")

    def get_metadata(self) -> dict[str, object] | None:
        """Return the metadata of `set_metadata`, or None."""
        try:
            found: dict[str, object] = json.loads(self._metadata_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def get_experiment_best_validation(self) -> float | None:
        """Return the best searcher metric of the experiment so far, or None."""
        return self._best

    def get_tensorboard_path(self) -> Path:
        """Return the directory for TensorBoard files, inside the run's folder."""
        path = Path(self._handle.info.run_dir) / TENSORBOARD_DIR
        path.mkdir(parents=True, exist_ok=True)
        return path

    def upload_tensorboard_files(
        self,
        selector: Callable[[Path], bool] = lambda _: True,
        mangler: Callable[[Path, int], Path] = lambda path, _: path,
    ) -> None:
        """Accepted for compatibility: the files need no upload."""

    @property
    def _metadata_file(self) -> Path:
        return Path(self._handle.info.run_dir) / _METADATA_FILE

    def _note(self, metrics: Mapping[str, object]) -> None:
        policy = SavePolicy.configured({**self._handle.info.config, "checkpoint_policy": "best"})
        value = metrics.get(policy.metric)
        if isinstance(value, (int, float)) and policy.better(float(value), self._best):
            self._best = float(value)


def _steps(steps_completed: object) -> int:
    if isinstance(steps_completed, bool) or not isinstance(steps_completed, int):
        raise TypeError(f"steps_completed is {steps_completed!r}, expected an integer number of batches")
    return steps_completed
