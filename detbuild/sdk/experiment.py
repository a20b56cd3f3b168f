"""`Experiment`: its state, its results, and requests to change it."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detbuild.sdk import host
from detbuild.sdk.checkpoint import Checkpoint, SortBy, checkpoints_in, ordered
from detbuild.sdk.enums import ExperimentState, OrderBy, TrialSortBy
from detbuild.sdk.trial import Trial, trials_in
from determined.experimental._say import note_ignored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TERMINAL = frozenset(
    {
        ExperimentState.COMPLETED,
        ExperimentState.CANCELED,
        ExperimentState.ERROR,
        ExperimentState.DELETED,
    }
)


class Experiment:
    """An experiment, from `client.get_experiment(id)` or `client.create_experiment(...)`.

    Attributes that change while it runs are updated by `reload` and by methods that say so.

    Attributes:
        id: Its ID.
        config: Complete, with secrets hidden.
        state: Its state.
        progress: Progress of its search, 0 to 1.
        name: As submitted or set; so are `description`, `notes` and `labels`.
        archived: Whether listings omit it.
    """

    def __init__(self, experiment_id: int, session: object = None) -> None:  # noqa: ARG002  (no server)
        self._id = int(experiment_id)
        with host.found():
            self._experiment = host.client().experiment(self._id)
        self.reload()

    @property
    def id(self) -> int:
        return self._id

    def reload(self) -> None:
        """Read everything that changes again."""
        with host.found():
            state = self._experiment.journaled()
            name = "DELETING" if self._experiment.is_deleting() else state.state
            self.state = ExperimentState(f"STATE_{name}")
            self._read_attributes()
        self.__dict__.pop("config", None)

    @cached_property
    def config(self) -> dict[str, Any]:
        with host.explained():
            return self._experiment.config()

    @property
    def description(self) -> str:
        changed = self._described
        return self.config.get("description") or "" if changed is None else changed

    def _read_attributes(self) -> None:
        header, attributes = self._experiment.header(), self._experiment.attributes()
        self.name: str = header.name
        self.labels: set[str] = set(header.labels)
        self.archived: bool = attributes.archived
        self._described = attributes.description
        self.notes: str = attributes.notes or ""

    @property
    def progress(self) -> float:
        """The current progress of its search, 0 to 1."""
        return self._experiment.state().progress

    def wait(self, interval: float = 5.0) -> ExperimentState:
        """Wait until it has ended, polling every `interval` seconds; return its state.

        Raises:
            ValueError: It is paused, without a pending request, so it would never end.
            DetbuildError: Its controller has ended and cannot be restarted.
        """
        watcher = self._experiment.watcher(host.log_event)
        while True:
            self.reload()
            if self.state in _TERMINAL:
                return self.state
            if self.state is ExperimentState.PAUSED and self._experiment.needs_activation():
                raise ValueError(f"experiment {self.id} is paused; activate it before waiting for it")
            with host.explained():
                watcher.poll()
            time.sleep(interval)

    def await_first_trial(self, interval: float = 0.1) -> Trial:
        """Wait for its first trial and return it.

        Raises:
            ValueError: It has ended without one.
        """
        while not (state := self._experiment.journaled()).trials:
            if state.over:
                raise ValueError(f"experiment {self.id} has ended without a trial: {state.state.label}")
            time.sleep(interval)
        return Trial((self.id, min(state.trials)))

    def iter_trials(
        self,
        sort_by: TrialSortBy = TrialSortBy.ID,
        order_by: OrderBy = OrderBy.ASC,
        limit: int | None = None,
        max_results: int | None = None,
    ) -> Iterator[Trial]:
        """Yield its trials.

        Args:
            sort_by: Field to sort by; trials without a value come last.
            order_by: Ascending or descending.
            limit: Determined's page size; has no effect.
            max_results: Maximum number.
        """
        note_ignored("limit", limit, why="there are no pages; max_results limits the result")
        yield from trials_in(self._experiment, sort_by, order_by)[:max_results]

    def list_trials(
        self,
        sort_by: TrialSortBy = TrialSortBy.ID,
        order_by: OrderBy = OrderBy.ASC,
        limit: int | None = None,
        max_results: int | None = None,
    ) -> list[Trial]:
        """The same as a list."""
        return list(self.iter_trials(sort_by, order_by, limit, max_results))

    def get_trials(
        self, sort_by: TrialSortBy = TrialSortBy.ID, order_by: OrderBy = OrderBy.ASC
    ) -> list[Trial]:
        """The same under Determined's older name."""
        return self.list_trials(sort_by, order_by)

    def list_checkpoints(
        self, sort_by: SortBy = None, order_by: OrderBy | None = None, max_results: int | None = None
    ) -> list[Checkpoint]:
        """Return its checkpoints, the best by the searcher's metric first.

        Args:
            sort_by: A field, or the name of a validation metric; goes with `order_by`.
            order_by: Ascending or descending.
            max_results: Maximum number.
        """
        return ordered(checkpoints_in(self._experiment), sort_by, order_by, max_results)

    def top_checkpoint(self, sort_by: str | None = None, smaller_is_better: bool | None = None) -> Checkpoint:
        """Return the best checkpoint by a validation metric, by default the searcher's.

        Raises:
            ValueError: No checkpoint has that metric.
        """
        found = self.top_n_checkpoints(1, sort_by, smaller_is_better)
        if not found:
            raise ValueError(f"experiment {self.id} has no checkpoint with that metric")
        return found[0]

    def top_n_checkpoints(
        self, limit: int, sort_by: str | None = None, smaller_is_better: bool | None = None
    ) -> list[Checkpoint]:
        """Return the best checkpoint of each of its `limit` best trials, the best first.

        Args:
            limit: Maximum number.
            sort_by: Name of a validation metric; the searcher's by default.
            smaller_is_better: Direction of the metric; by default the searcher's.
        """
        with host.explained():
            found = self._experiment.best_checkpoints(sort_by, smaller_is_better=smaller_is_better)
        return [Checkpoint(one) for one in found[:limit]]

    def download_code(self, output_dir: str | None = None) -> str:
        """Copy its code from its image into a new directory, and return the directory's path.

        Args:
            output_dir: By default `experiment_<id>_model_def` in the current directory.
        """
        directory = Path(output_dir or f"experiment_{self.id}_model_def")
        with host.explained():
            self._experiment.download_code(directory)
        return str(directory)

    def logs(self, **options: Any) -> Iterator[str]:
        """Yield the log lines of all its trials, trial by trial; options as for `Trial.iter_logs`."""
        for trial in self.list_trials():
            yield from trial.iter_logs(**options)

    def pause(self) -> None:
        """Stop it after a checkpoint, until it is activated."""
        with host.explained():
            self._experiment.pause()

    def activate(self) -> None:
        """Unpause it."""
        with host.explained():
            self._experiment.activate()

    def cancel(self) -> None:
        """Stop it after a final checkpoint."""
        with host.explained():
            self._experiment.cancel()

    def kill(self) -> None:
        """Stop it at once; training since its last checkpoint is lost."""
        with host.explained():
            self._experiment.kill()

    def archive(self) -> None:
        """Omit it from listings, after it has ended."""
        self._archive(archived=True)

    def unarchive(self) -> None:
        """Restore it in listings."""
        self._archive(archived=False)

    def _archive(self, *, archived: bool) -> None:
        with host.explained():
            host.client().set_archived([self._experiment], archived=archived)
        self.archived = archived

    def delete(self, force: bool = False) -> None:
        """Delete it with its checkpoints, after it has ended.

        Args:
            force: Even if its checkpoints are registered or were the source of another experiment.
        """
        with host.explained():
            self._experiment.delete(force=force)

    def set_name(self, name: str) -> None:
        self._change(name=name)

    def set_description(self, description: str) -> None:
        self._change(description=description)

    def set_notes(self, notes: str) -> None:
        self._change(notes=notes)

    def set_labels(self, labels: Iterable[str]) -> None:
        """Replace its labels."""
        self._change(labels=tuple(dict.fromkeys(labels)))

    def add_label(self, label: str) -> None:
        with host.explained():
            self._experiment.add_label(label)
            self._read_attributes()

    def remove_label(self, label: str) -> None:
        with host.explained():
            if label in self._experiment.header().labels:
                self._experiment.remove_label(label)
            self._read_attributes()

    def move_to_project(self, workspace_name: str, project_name: str) -> None:
        """Log that this has no effect: there are no projects."""
        note_ignored("move_to_project", (workspace_name, project_name), why="there are no projects here")

    def _change(self, **attributes: object) -> None:
        with host.explained():
            self._experiment.change(**attributes)
            self._read_attributes()

    def __repr__(self) -> str:
        return f"Experiment(id={self.id})"
