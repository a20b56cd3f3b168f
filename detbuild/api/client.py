"""`Client`: the experiments and checkpoints of one home; every use case begins here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.api.connection import Connection, docker_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from detbuild.api.checkpoint import Checkpoint
    from detbuild.api.documents import Document, Listed
    from detbuild.api.experiment import Experiment
    from detbuild.api.registry import Models, Templates
    from detbuild.api.trial import Trial
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder

__all__ = ["Client", "docker_engine"]


class Client(Connection):
    """The experiments and checkpoints of one home."""

    def experiment(self, experiment_id: int) -> Experiment:
        """Return an experiment.

        Raises:
            ConfigError: It does not exist.
        """
        from detbuild.api.experiment import Experiment

        return Experiment(self, self.home.experiment(experiment_id))

    def experiments(self, experiment_ids: Sequence[int]) -> list[Experiment]:
        """Return several experiments, so that an unknown ID fails before anything changes."""
        return [self.experiment(experiment_id) for experiment_id in experiment_ids]

    def listed(self, *, archived: bool = True) -> Iterator[Listed]:
        """Yield all experiments, newest first, without unfinished submissions.

        Damaged ones are skipped, with a warning.
        """
        from detbuild.api import documents
        from detbuild.errors import EngineError
        from detbuild.store.cache import summaries
        from detbuild.store.home import damaged

        for summary in summaries(self.home, self.emit):
            try:
                found = documents.listed(summary, self.home.folder(summary.id))
            except EngineError as error:
                self.emit(damaged(summary.id, error))
                continue
            if archived or not found.archived:
                yield found

    def tasks(self) -> Iterator[Document]:
        """Yield the trials that have not ended, oldest first, as `det task list --json` prints them."""
        from detbuild.api import documents
        from detbuild.store.state import fold

        read = self.home.each(
            lambda folder: fold(folder.header(), folder.journal()), self.emit, oldest_first=True
        )
        for state in read:
            for trial in state.trials.values() if not state.over else ():
                if not trial.ended:
                    yield documents.task(state.header.id, trial)

    def trial(self, experiment_id: int, trial_id: int, *, progress: bool = True) -> Trial:
        """Return a trial; without `progress` by the journal alone.

        Raises:
            ConfigError: It does not exist.
        """
        return self.experiment(experiment_id).trial(trial_id, progress=progress)

    def checkpoint(self, uuid: str) -> Checkpoint:
        """Return a checkpoint of any experiment by its UUID or a unique prefix of it.

        Raises:
            ConfigError: None or several match.
        """
        from detbuild.api.checkpoint import find

        return find(self, uuid)

    def newest_checkpoint(self, label: str) -> str | None:
        """Return the newest complete checkpoint of the last experiment with the label that has one."""
        from detbuild.checkpoint.find import checkpoints_of

        def newest(folder: ExperimentFolder) -> str:
            found = checkpoints_of(folder) if label in folder.header().labels else ()
            return next((each.checkpoint.uuid for each in found if each.state == "COMPLETED"), "")

        return next(filter(None, self.home.each(newest, self.emit)), None)

    @property
    def models(self) -> Models:
        """The model registry."""
        from detbuild.api.registry import Models

        return Models(self.home)

    @property
    def templates(self) -> Templates:
        """The config templates."""
        from detbuild.api.registry import Templates

        return Templates(self.home)

    def delete_checkpoints(self, uuids: Sequence[str], globs: Sequence[str] = ()) -> list[str]:
        """Delete checkpoints, or only those of their files that match a glob; return their UUIDs.

        Args:
            uuids: Checkpoints of experiments that have ended; a unique prefix is enough.
            globs: As in a shell; `**` matches any directories.

        Raises:
            ConfigError: A checkpoint does not exist, its experiment has not ended, or it is in use.
        """
        from detbuild.controller.checkpoints import delete

        return [one.checkpoint.uuid for one in delete(self.home, uuids, globs)]

    def import_checkpoint(self, source: Path, uuid: str | None = None) -> str:
        """Import a checkpoint from a directory or a tar file, and return its UUID."""
        from detbuild.checkpoint.source import import_checkpoint

        return import_checkpoint(self.home, source, uuid)

    def resume(self, emit: Emit) -> tuple[int, ...]:
        """Restart the controllers of all experiments that lost theirs; return their IDs.

        Damaged ones are skipped and reported to `emit`.
        """
        from detbuild.controller.requests import resume

        return resume(self.home, emit)

    def set_archived(self, experiments: Sequence[Experiment], *, archived: bool) -> None:
        """Archive or unarchive all of the experiments, or none.

        Raises:
            ConfigError: One has not ended.
        """
        from detbuild.store.home import set_archived

        set_archived([one.folder for one in experiments], archived=archived)

    def finish_deletions(self) -> None:
        """Finish deletions that a crash interrupted; warn of those that cannot be finished."""
        from detbuild.store.home import unfinished_deletions

        if not any(unfinished_deletions(self.home)):
            return
        from detbuild.controller.deletion import finish_deletions
        from detbuild.events import Warned

        for error in finish_deletions(self.home):
            self.emit(Warned(f"could not finish a deletion: {error}", error.hint))
