"""`Experiment`: how it is going, what came of it, and what is to become of it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from determined.experimental._say import note_ignored
from determined.experimental.client import _host
from determined.experimental.client._checkpoint import Checkpoint, checkpoints_in
from determined.experimental.client._enums import ExperimentState, OrderBy, TrialSortBy
from determined.experimental.client._ranking import SortBy, ordered
from determined.experimental.client._trial import Trial, trials_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from detbuild.store.attributes import Attributes

_TERMINAL = frozenset(
    {
        ExperimentState.COMPLETED,
        ExperimentState.CANCELED,
        ExperimentState.ERROR,
        ExperimentState.DELETED,
    }
)


class Experiment:
    """An experiment; `client.get_experiment(id)` and `client.create_experiment(...)` give it.

    What changes while it runs is as it was when the object was made, until `reload` or a method that says so.

    Attributes:
        id: Its number.
        config: Complete, with secrets hidden.
        state: How it is going.
        progress: Of its search, 0 to 1.
        name: As submitted or set; so are `description`, `notes` and `labels`.
        archived: Whether listings leave it out.
    """

    def __init__(self, experiment_id: int, session: object = None) -> None:  # noqa: ARG002  (no server)
        self._id = int(experiment_id)
        self._folder = _host.folder_of(self._id)
        self.reload()

    @property
    def id(self) -> int:
        return self._id

    def reload(self) -> None:
        """Look again at everything that changes."""
        with _host.found():
            from detbuild.store.attributes import read_attributes
            from detbuild.store.deleting import is_deleting
            from determined.experimental.client._read import experiment_state

            state = experiment_state(self._folder)
            name = "DELETING" if is_deleting(self._folder) else state.state
            self.state = ExperimentState(f"STATE_{name}")
            self._put(read_attributes(self._folder.path))
        self.__dict__.pop("config", None)

    @cached_property
    def config(self) -> dict[str, Any]:
        with _host.explained():
            from detbuild.store.submitted import config_of

            return config_of(self._folder).resolved()

    @property
    def description(self) -> str:
        changed = self._described
        return self.config.get("description") or "" if changed is None else changed

    def _put(self, attributes: Attributes) -> None:
        header = self._folder.header()
        self.name: str = header.name
        self.labels: set[str] = set(header.labels)
        self.archived: bool = attributes.archived
        self._described = attributes.description
        self.notes: str = attributes.notes or ""

    @property
    def progress(self) -> float:
        """How much of its search is done now, 0 to 1."""
        from detbuild.store.state import load

        return load(self._folder).progress

    def wait(self, interval: float = 5.0) -> ExperimentState:
        """Return its state once it has ended; look every `interval` seconds.

        Raises:
            ValueError: It is paused, nobody has asked it to go on or to end, and so it never would.
            DetbuildError: Its controller is gone and does not stay alive.
        """
        from detbuild.controller.attend import RequestWatcher, needs_controller
        from determined.experimental._log import tell

        watcher = RequestWatcher(self._folder, tell)
        while True:
            self.reload()
            if self.state in _TERMINAL:
                return self.state
            if self.state is ExperimentState.PAUSED and not needs_controller(self._folder):
                raise ValueError(f"experiment {self.id} is paused; activate it before you wait for it")
            with _host.explained():
                watcher.poll()
            time.sleep(interval)

    def await_first_trial(self, interval: float = 0.1) -> Trial:
        """Return its first trial as soon as there is one.

        Raises:
            ValueError: It has ended without one.
        """
        from determined.experimental.client._read import experiment_state

        while not (state := experiment_state(self._folder)).trials:
            if state.over:
                raise ValueError(f"experiment {self.id} has ended without a trial: {state.state}")
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
            sort_by: What they are sorted by; a trial that has no such value comes last.
            order_by: Ascending or descending.
            limit: Determined's size of a page: of no meaning here.
            max_results: At most so many.
        """
        note_ignored("limit", limit, why="there are no pages; max_results limits the result")
        yield from trials_in(self._folder, sort_by, order_by)[:max_results]

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
        """Its checkpoints, the best by the searcher's metric first.

        Args:
            sort_by: A field, or the name of a validation metric; goes with `order_by`.
            order_by: Ascending or descending.
            max_results: At most so many.
        """
        return ordered(checkpoints_in(self._folder), sort_by, order_by, max_results)

    def top_checkpoint(self, sort_by: str | None = None, smaller_is_better: bool | None = None) -> Checkpoint:
        """The best checkpoint by a validation metric; the searcher's by default.

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
        """The best checkpoint of each of its `limit` best trials, the best first.

        Args:
            limit: At most so many.
            sort_by: Name of a validation metric; the searcher's by default.
            smaller_is_better: Which way is better; by default as the searcher has it.
        """
        with _host.explained():
            from detbuild.checkpoint.find import checkpoints_of
            from detbuild.checkpoint.ranking import best_of_trials, goal_of

            goal = goal_of(self._folder.header(), sort_by, smaller_is_better)
            found = best_of_trials(checkpoints_of(self._folder), goal)
        return [Checkpoint(one, self._folder) for one in found[:limit]]

    def download_code(self, output_dir: str | None = None) -> str:
        """Copy its code out of its image, into a new directory, and return the directory's name.

        Args:
            output_dir: By default `experiment_<id>_model_def` in the current directory.
        """
        directory = Path(output_dir or f"experiment_{self.id}_model_def")
        with _host.explained():
            from detbuild.controller.definition import download_code

            download_code(_host.home(), self._folder, directory, _host.connect)
        return str(directory)

    def logs(self, **options: Any) -> Iterator[str]:
        """Yield the lines of all its trials, one after the other; options as for `Trial.iter_logs`."""
        for trial in self.list_trials():
            yield from trial.iter_logs(**options)

    def pause(self) -> None:
        """Stop it after a checkpoint, until it is activated."""
        self._ask("pause")

    def activate(self) -> None:
        """Let it go on after a pause."""
        self._ask("activate")

    def cancel(self) -> None:
        """Stop it after a last checkpoint."""
        self._ask("cancel")

    def kill(self) -> None:
        """Stop it at once; what it trained since its last checkpoint is lost."""
        self._ask("kill")

    def _ask(self, verb: Literal["kill", "cancel", "pause", "activate"]) -> None:
        with _host.explained():
            from detbuild.controller.attend import request

            request(_host.home(), self.id, verb)

    def archive(self) -> None:
        """Leave it out of listings, once it has ended."""
        self._archive(archived=True)

    def unarchive(self) -> None:
        """Put it back into listings."""
        self._archive(archived=False)

    def _archive(self, *, archived: bool) -> None:
        with _host.explained():
            from detbuild.store.archive import set_archived

            set_archived([self._folder], archived=archived)
        self.archived = archived

    def delete(self, force: bool = False) -> None:
        """Delete it with its checkpoints, once it has ended.

        Args:
            force: Also when its checkpoints are registered or were the source of another experiment.
        """
        with _host.explained():
            from detbuild.controller.deletion import delete

            delete(_host.home(), self.id, _host.connect, force=force)

    def set_name(self, name: str) -> None:
        self._change(lambda attributes: replace(attributes, name=name))

    def set_description(self, description: str) -> None:
        self._change(lambda attributes: replace(attributes, description=description))

    def set_notes(self, notes: str) -> None:
        self._change(lambda attributes: replace(attributes, notes=notes))

    def set_labels(self, labels: Iterable[str]) -> None:
        """Put these labels in the place of all that it had."""
        given = tuple(dict.fromkeys(labels))
        self._change(lambda attributes: replace(attributes, labels=given))

    def add_label(self, label: str) -> None:
        from detbuild.store.attributes import with_label

        submitted = self._folder.header().labels
        self._change(lambda attributes: with_label(attributes, submitted, label))

    def remove_label(self, label: str) -> None:
        from detbuild.store.attributes import without_label

        submitted = self._folder.header().labels
        self._change(lambda attributes: without_label(attributes, submitted, label))

    def move_to_project(self, workspace_name: str, project_name: str) -> None:
        """Of no effect, which is said: there is no server, and so there are no projects."""
        note_ignored("move_to_project", (workspace_name, project_name), why="there are no projects here")

    def _change(self, change: Callable[[Attributes], Attributes]) -> None:
        with _host.explained():
            from detbuild.store.attributes import change_attributes

            self._put(change_attributes(self._folder.path, change))

    def __repr__(self) -> str:
        return f"Experiment(id={self.id})"
