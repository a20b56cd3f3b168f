"""`Checkpoint`: its metadata, its files and the model in it; with reported metrics, by which it is ranked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detbuild.jsontext import json_text
from detbuild.sdk import host
from detbuild.sdk.enums import CheckpointSortBy, CheckpointState, DownloadMode, ModelFramework, OrderBy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.api import checkpoint, experiment, trial

_METADATA_FILE = "metadata.json"
SortBy = str | CheckpointSortBy | None


@dataclass(frozen=True)
class CheckpointTrainingMetadata:
    """The trial of a checkpoint."""

    experiment_config: Mapping[str, Any]  # complete, secrets hidden
    experiment_id: int
    trial_id: str  # "experiment/trial", as Trial.id
    hparams: Mapping[str, Any]
    validation_metrics: Mapping[str, Any]  # {"avgMetrics": {...}} of the same batch, or empty


class Checkpoint:
    """A checkpoint of a trial, from `client.get_checkpoint(uuid)` or the methods of a trial.

    Attributes:
        uuid: Its UUID.
        state: Whether it exists; updated by `reload`.
        experiment_id: ID of its experiment.
        trial_id: "experiment/trial", as `Trial.id`.
        steps_completed: Batches trained.
        resources: Path of each file -> bytes.
        metadata: Its metadata, changed by `add_metadata` and `remove_metadata`.
        report_time: When it was reported, in UTC.
        training: Its trial.
    """

    def __init__(self, checkpoint: checkpoint.Checkpoint) -> None:
        self._take(checkpoint)

    def _take(self, checkpoint: checkpoint.Checkpoint) -> None:
        self._checkpoint, found = checkpoint, checkpoint.found
        self.uuid = found.checkpoint.uuid
        self.state = CheckpointState[found.state]
        self.experiment_id = found.experiment_id
        self.trial_id = f"{found.experiment_id}/{found.trial_id}"
        self.steps_completed = found.checkpoint.steps_completed
        self.validation_metrics: Mapping[str, object] = dict(checkpoint.metrics)

    def reload(self) -> None:
        """Read state, metadata and resources again."""
        with host.found():
            self._take(host.client().checkpoint(self.uuid))
        for name in ("metadata", "resources"):
            self.__dict__.pop(name, None)

    @cached_property
    def training(self) -> CheckpointTrainingMetadata:
        with host.explained():
            own = host.client().experiment(self.experiment_id)
            trials, metrics = own.journaled().trials, self.validation_metrics
            return CheckpointTrainingMetadata(
                experiment_config=own.config(),
                experiment_id=self.experiment_id,
                trial_id=self.trial_id,
                hparams=dict(trials[self._checkpoint.found.trial_id].hparams),
                validation_metrics={"avgMetrics": metrics} if metrics else {},
            )

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        with host.explained():
            return self._checkpoint.metadata()

    @cached_property
    def resources(self) -> Mapping[str, int]:
        with host.explained():
            return dict(self._checkpoint.contents())

    @property
    def report_time(self) -> datetime | None:
        reported = self._checkpoint.reported
        return None if reported is None else datetime.fromtimestamp(reported, timezone.utc)

    @cached_property
    def searcher(self) -> tuple[str, bool]:
        """The searcher's metric, and whether smaller is better."""
        goal = self._checkpoint.goal()
        return goal.metric, goal.smaller_is_better

    def download(self, path: str | None = None, mode: DownloadMode | str = DownloadMode.AUTO) -> str:
        """Copy and verify it into a directory, and return the directory's path.

        Args:
            path: `checkpoints/<uuid>` by default; a directory that contains a checkpoint is not changed.
            mode: Has no effect: there is no master.

        Raises:
            EngineError: It is damaged or missing.
        """
        DownloadMode(mode)
        directory = Path(path) if path is not None else Path("checkpoints", self.uuid)
        if not (directory / _METADATA_FILE).exists():
            with host.explained():
                self._checkpoint.download(directory)
        return str(directory)

    def delete(self) -> None:
        """Delete its files from their storage, after its experiment has ended.

        Raises:
            ConfigError: It is in use, or the experiment has not ended.
        """
        self._remove(())

    def remove_files(self, globs: Sequence[str]) -> None:
        """Delete its files whose paths match a glob; `**` matches any directories."""
        self._remove(tuple(globs))

    def _remove(self, globs: Sequence[str]) -> None:
        with host.explained():
            host.client().delete_checkpoints([self.uuid], globs)
        self.reload()

    def write_metadata_file(self, path: str) -> None:
        """Write its current metadata into a file."""
        Path(path).write_text(json_text(self.metadata), encoding="utf-8")

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to its metadata. The stored files do not change."""
        self._annotate(lambda before: {**before, **metadata})

    def remove_metadata(self, keys: Sequence[str]) -> None:
        """Remove keys from its metadata. The stored files do not change."""
        self._annotate(lambda before: {key: value for key, value in before.items() if key not in keys})

    def get_metrics(self, group: str | None = None) -> Iterator[TrialMetrics]:
        """Yield the metrics that its trial reported at the checkpoint's batch."""
        for one in iter_trial_metrics([self.trial_id], group):
            if one.steps_completed == self.steps_completed:
                yield one

    def load(self, path: str | None = None, tags: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Download it if needed, and return its trial (PyTorch) or model (Keras).

        Args:
            path: As for `download`.
            tags: Has no effect.
            kwargs: For `torch.load`.
        """
        return self.load_from_path(self.download(path), tags, **kwargs)

    @staticmethod
    def load_from_path(path: str, tags: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Return the trial or model in the directory of a checkpoint.

        Raises:
            ValueError: Its framework is unknown.
        """
        framework = Checkpoint.get_type(Checkpoint.parse_metadata(Path(path)))
        if framework is ModelFramework.PYTORCH:
            from determined.pytorch import load_trial_from_checkpoint_path

            return load_trial_from_checkpoint_path(path, **kwargs)
        from determined.keras import load_model_from_checkpoint_path

        return load_model_from_checkpoint_path(path, tags)

    @staticmethod
    def parse_metadata(directory: Path) -> dict[str, Any]:
        """Read the metadata file in the directory of a checkpoint."""
        found: dict[str, Any] = json.loads((Path(directory) / _METADATA_FILE).read_bytes())
        return found

    @staticmethod
    def get_type(metadata: Mapping[str, Any]) -> ModelFramework:
        """Return the framework of a checkpoint with these metadata.

        Raises:
            ValueError: Its framework is unknown.
        """
        framework = str(metadata.get("framework", ""))
        if framework.startswith("torch") or "torch_version" in metadata:
            return ModelFramework.PYTORCH
        if framework.startswith("tensorflow") or "tensorflow_version" in metadata:
            return ModelFramework.TENSORFLOW
        raise ValueError("the checkpoint's metadata have neither a torch nor a tensorflow version")

    def _annotate(self, change: Any) -> None:
        with host.explained():
            self.metadata = self._checkpoint.change_metadata(change)

    def __repr__(self) -> str:
        return f"Checkpoint(uuid={self.uuid!r}, trial_id={self.trial_id!r}, state={self.state.name})"


def checkpoints_in(found: experiment.Experiment | trial.Trial) -> list[Checkpoint]:
    """Return all checkpoints of an experiment or of a trial, newest first."""
    with host.explained():
        return [Checkpoint(one) for one in found.checkpoints()]


@dataclass(frozen=True)
class TrialMetrics:
    """One report of a trial."""

    trial_id: str  # "experiment/trial", as Trial.id
    trial_run_id: int  # 0 for the first run of the trial, plus 1 for each restart
    steps_completed: int  # batches
    end_time: datetime  # in UTC
    metrics: Mapping[str, object]
    group: str  # "training", "validation", or a name of the script's own
    batch_metrics: None = None  # only averages over the batches between two reports are stored


def iter_trial_metrics(trial_ids: Sequence[host.TrialId], group: str | None = None) -> Iterator[TrialMetrics]:
    """Yield the metrics that the trials have reported so far, one trial after another, each in order."""
    for numbers in [host.trial_numbers(one) for one in trial_ids]:
        with host.found():
            found = host.client().trial(*numbers, progress=False)
        for one in found.measurements(group or ""):
            yield TrialMetrics(
                trial_id=f"{numbers[0]}/{numbers[1]}",
                trial_run_id=one.run,
                steps_completed=one.steps_completed,
                end_time=datetime.fromtimestamp(one.time, timezone.utc),
                metrics=one.metrics,
                group=one.group,
            )


def ordered(
    checkpoints: Iterable[Checkpoint], sort_by: SortBy, order_by: OrderBy | None, max_results: int | None
) -> list[Checkpoint]:
    """Sort checkpoints; without `sort_by` by the searcher's metric, the best first.

    Raises:
        ValueError: Only one of `sort_by` and `order_by` was given.
    """
    if (sort_by is None) != (order_by is None):
        raise ValueError("sort_by and order_by go together")
    found = list(checkpoints)
    if sort_by is CheckpointSortBy.SEARCHER_METRIC and found:
        sort_by = found[0].searcher[0]
    if sort_by is None:
        ranked = _by_metric(found, None, None)
    elif isinstance(sort_by, CheckpointSortBy):
        ranked = sorted(found, key=lambda one: _field(one, sort_by), reverse=order_by is OrderBy.DESC)
    else:
        ranked = _by_metric(found, sort_by, smaller_is_better=order_by is OrderBy.ASC)
    return ranked if max_results is None else ranked[:max_results]


def _by_metric(
    checkpoints: Iterable[Checkpoint], metric: str | None, smaller_is_better: bool | None
) -> list[Checkpoint]:
    """Sort the best first; without `metric` by the searcher's, ignoring `smaller_is_better`."""

    def key(one: Checkpoint) -> tuple[bool, float]:
        name, smaller = one.searcher
        if metric is not None:
            name, smaller = metric, smaller if smaller_is_better is None else smaller_is_better
        value = _metric(one, name)
        return (True, 0.0) if value is None else (False, value if smaller else -value)

    return sorted(checkpoints, key=key)


def _metric(one: Checkpoint, name: str) -> float | None:
    value = one.validation_metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def _field(one: Checkpoint, sort_by: CheckpointSortBy) -> tuple[float, str]:
    match sort_by:
        case CheckpointSortBy.BATCH_NUMBER:
            return (one.steps_completed, "")
        case CheckpointSortBy.END_TIME:
            return (one.report_time.timestamp() if one.report_time else math.inf, "")
        case CheckpointSortBy.STATE:
            return (0, one.state.name)
        case _:
            return (0, one.uuid)
