"""`Checkpoint`: its metadata, its files, and the model in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from determined.experimental.client import _host
from determined.experimental.client._enums import CheckpointState, DownloadMode, ModelFramework
from determined.experimental.client._metrics import TrialMetrics, iter_trial_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from detbuild.checkpoint.find import Found
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._contract.records import Line

METADATA_FILE = "metadata.json"


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

    def __init__(self, found: Found, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._take(found)

    def _take(self, found: Found) -> None:
        self._found = found
        self.uuid = found.checkpoint.uuid
        self.state = CheckpointState[found.state]
        self.experiment_id = found.experiment_id
        self.trial_id = f"{found.experiment_id}/{found.trial_id}"
        self.steps_completed = found.checkpoint.steps_completed
        validation = found.checkpoint.validation
        self.validation_metrics: Mapping[str, object] = dict(validation.metrics) if validation else {}

    def reload(self) -> None:
        """Read state, metadata and resources again."""
        with _host.found():
            from detbuild.checkpoint.find import find_checkpoint

            self._take(find_checkpoint(_host.home(), self.uuid))
        for name in ("_line", "metadata", "resources"):
            self.__dict__.pop(name, None)

    @cached_property
    def training(self) -> CheckpointTrainingMetadata:
        from detbuild.store.experiment_dir import config_of
        from detbuild.store.state import fold

        with _host.explained():
            trials = fold(self._folder.header(), self._folder.journal()).trials
            metrics = self.validation_metrics
            return CheckpointTrainingMetadata(
                experiment_config=config_of(self._folder).resolved(),
                experiment_id=self.experiment_id,
                trial_id=self.trial_id,
                hparams=dict(trials[self._found.trial_id].hparams),
                validation_metrics={"avgMetrics": metrics} if metrics else {},
            )

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        from detbuild.store.annotations import metadata_of

        with _host.explained():
            return metadata_of(self._folder.path, self.uuid, self._stored_metadata)

    @cached_property
    def resources(self) -> Mapping[str, int]:
        from detbuild.checkpoint.find import files_of

        with _host.explained():
            return dict(files_of(_host.home(), self._found))

    @property
    def report_time(self) -> datetime | None:
        return datetime.fromtimestamp(self._line.time, timezone.utc) if self._line else None

    @cached_property
    def searcher(self) -> tuple[str, bool]:
        """The searcher's metric, and whether smaller is better."""
        header = self._folder.header()
        return header.metric, header.smaller_is_better

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
        if not (directory / METADATA_FILE).exists():
            with _host.explained():
                from detbuild.checkpoint.download import download

                download(self._found, directory)
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
        with _host.explained():
            from detbuild.controller.checkpoints import delete

            delete(_host.home(), [self.uuid], globs)
        self.reload()

    def write_metadata_file(self, path: str) -> None:
        """Write its current metadata into a file."""
        from detbuild.jsontext import json_text

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
        found: dict[str, Any] = json.loads((Path(directory) / METADATA_FILE).read_bytes())
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
        from detbuild.store.annotations import change_metadata

        with _host.explained():
            self.metadata = change_metadata(self._folder.path, self.uuid, self._stored_metadata, change)

    @property
    def _stored_metadata(self) -> Mapping[str, object]:
        record = self._line.record if self._line else None
        return dict(getattr(record, "metadata", {}))

    @cached_property
    def _line(self) -> Line | None:
        """Return the record of its run."""
        from detbuild.store.records import RecordFile

        run = self._folder.run(self._found.trial_id, self._found.checkpoint.run)
        lines = RecordFile(run).rest()
        return next((line for line in lines if getattr(line.record, "uuid", "") == self.uuid), None)

    def __repr__(self) -> str:
        return f"Checkpoint(uuid={self.uuid!r}, trial_id={self.trial_id!r}, state={self.state.name})"


def checkpoints_in(folder: ExperimentFolder, trial_id: int | None = None) -> list[Checkpoint]:
    """Return all checkpoints of an experiment, or of one of its trials, newest first."""
    with _host.explained():
        from detbuild.checkpoint.find import checkpoints_of

        return [Checkpoint(one, folder) for one in checkpoints_of(folder) if trial_id in {None, one.trial_id}]
