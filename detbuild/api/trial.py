"""`Trial`: one trial of an experiment, its metrics and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detbuild.api import documents
from detbuild.errors import ConfigError
from detbuild.store import metrics
from detbuild.store.cache import journal_warnings
from detbuild.store.state import StateFold, run_records, trial_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from detbuild.api.checkpoint import Checkpoint
    from detbuild.api.connection import Connection
    from detbuild.api.logs import TrialLogs
    from detbuild.store.experiment_dir import ExperimentFolder, Header
    from detbuild.store.state import TrialState
    from determined._contract.untrusted import UntrustedDir


@dataclass(frozen=True)
class Trial:
    """A trial with the state that was read last."""

    connection: Connection
    folder: ExperimentFolder  # of its experiment
    state: TrialState

    @property
    def id(self) -> int:
        """Its number in its experiment, from 1."""
        return self.state.id

    @property
    def experiment_id(self) -> int:
        return self.folder.id

    def header(self) -> Header:
        """Return what was submitted as its experiment."""
        return self.folder.header()

    def logs(self) -> TrialLogs:
        """Return its logs."""
        from detbuild.api.logs import TrialLogs

        return TrialLogs(self.folder, self.id)

    def document(self, *, measurements: bool = False) -> documents.Document:
        """Return one element of "trials" of `detbuild describe --json`."""
        own = [one.found for one in self.checkpoints()]
        return documents.trial(self.state, self.folder, own, metrics=measurements)

    def measurements(self, group: str = "") -> Iterator[metrics.Measurement]:
        """Yield its reports so far, of one group or of all."""
        return metrics.measurements(self.folder, self.state, group)

    def reports(self) -> Iterator[tuple[str, metrics.Row]]:
        """Yield the group and the numbers of each of its reports."""
        return metrics.reports(self.folder, self.state)

    def measurement_documents(self) -> list[documents.Document]:
        """Return "measurements" of `detbuild describe --metrics --json`."""
        return [documents.measurement(one, self.folder.id, self.id) for one in self.measurements()]

    def summary(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        """Return count, last, minimum, maximum and mean of each metric, by group."""
        return metrics.summary(self.measurements())

    def checkpoints(self) -> list[Checkpoint]:
        """Return its checkpoints, newest first."""
        from detbuild.api.checkpoint import of_folder

        every = of_folder(self.connection, self.folder)
        return [one for one in every if one.found.trial_id == self.id]

    def best_checkpoints(
        self, metric: str | None = None, *, smaller_is_better: bool | None = None
    ) -> list[Checkpoint]:
        """Return its complete checkpoints with a metric, best first; by default with the searcher's."""
        from detbuild.api.checkpoint import goal_of, ranked

        return ranked(self.checkpoints(), goal_of(self.folder.header(), metric, smaller_is_better))

    def checkpoint(
        self,
        uuid: str | None = None,
        *,
        best: bool = False,
        metric: str | None = None,
        smaller_is_better: bool | None = None,
    ) -> Checkpoint:
        """Return its newest complete checkpoint, the best one, or one by its UUID or a unique prefix.

        Raises:
            ConfigError: There is none, or several match.
        """
        found = [one for one in self.checkpoints() if one.found.state == "COMPLETED"]
        if best:
            found = self.best_checkpoints(metric, smaller_is_better=smaller_is_better)
        found = [one for one in found if one.uuid.startswith(uuid or "")]
        if not found or (uuid is not None and len(found) > 1):
            raise ConfigError(
                f"trial {self.folder.id}/{self.id} has no such checkpoint",
                hint=f"see `det experiment list-checkpoints {self.folder.id}`",
            )
        return found[0]

    def write_bundle(self, directory: Path) -> Path:
        """Pack its files for a bug report into a .tar.gz file, without secrets, and return its path."""
        from detbuild.api.bundle import write_bundle

        return write_bundle(self.folder, self.state, self.document(), directory, self.connection.environ)

    def run_path(self, run: int) -> Path:
        """Return the folder of one of its runs."""
        return self.folder.run(self.id, run).path

    def run_files(self, run: int) -> UntrustedDir:
        """Return the files of one of its runs, which may have written anything."""
        return self.folder.run(self.id, run).files


def read_trial(
    connection: Connection, folder: ExperimentFolder, number: int, *, progress: bool = True
) -> Trial:
    """Read one trial without its siblings, of which there may be thousands.

    Args:
        connection: Receives a warning of a damaged journal.
        folder: Its experiment.
        number: Its number in the experiment.
        progress: Read its metrics and checkpoints too.

    Raises:
        ConfigError: It does not exist.
    """
    header = folder.header()
    entries, damage = folder.journal_with_damage()
    folded = StateFold(header, entries)
    state = replace(folded.snapshot(), damage=damage)
    for warning in journal_warnings(state):
        connection.emit(warning)
    if number not in state.trials:
        there = ", ".join(map(str, state.trials)) or "none yet"
        raise ConfigError(f"experiment {folder.id} has no trial {number}", hint=f"its trials: {there}")
    trial, goal = state.trials[number], header.goal
    if progress:
        found = trial_progress(run_records(folder, trial), goal, folded.stored)
        trial = replace(trial, progress=found)
    return Trial(connection, folder, trial)
