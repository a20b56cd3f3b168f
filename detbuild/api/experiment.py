"""`Experiment`: reads one experiment, and requests what its controller shall do with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from detbuild.api import documents
from detbuild.api.trial import Trial, read_trial
from detbuild.errors import ConfigError
from detbuild.store.annotations import change_attributes, read_attributes, with_label, without_label
from detbuild.store.cache import journal_warnings, load_cached
from detbuild.store.home import is_deleting
from detbuild.store.journal import Verb
from detbuild.store.state import ENDED, State, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from detbuild.api.checkpoint import Checkpoint
    from detbuild.api.connection import Connection
    from detbuild.api.logs import TrialLogs
    from detbuild.checkpoint.retention import Collection
    from detbuild.controller.requests import RequestWatcher
    from detbuild.events import Emit
    from detbuild.store.annotations import Attributes
    from detbuild.store.experiment_dir import ExperimentFolder, Header
    from detbuild.store.state import ExperimentState, TrialState


class Limits(NamedTuple):
    """The resource limits of each trial, as text."""

    memory: str
    cpus: str
    read_only_root: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of the home; each call reads its files again."""

    connection: Connection
    folder: ExperimentFolder

    @property
    def id(self) -> int:
        return self.folder.id

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    def header(self) -> Header:
        """Return what was submitted, with its present name and labels."""
        return self.folder.header()

    def state(self) -> ExperimentState:
        """Return its state with metrics and checkpoints; warn of a damaged journal."""
        state = load_cached(self.connection.home, self.folder)
        for warning in journal_warnings(state):
            self.connection.emit(warning)
        return state

    def journaled(self) -> ExperimentState:
        """Return its state by the journal alone, which is fast."""
        return fold(self.header(), self.folder.journal())

    def is_deleting(self) -> bool:
        """Whether its deletion was interrupted."""
        return is_deleting(self.folder)

    def described(self, state: ExperimentState, *, metrics: bool = False) -> documents.Document:
        """Return the document of `detbuild describe --json`; `metrics` adds that of `--metrics`."""
        return documents.described(state, self.folder, metrics=metrics)

    def config(self, *, masked: bool = False) -> dict[str, object]:
        """Return its complete config, as resolved or with secrets and values of variables masked."""
        from detbuild.store.experiment_dir import config_of

        found = config_of(self.folder)
        return found.masked() if masked else found.resolved()

    def attributes(self) -> Attributes:
        """Return what was changed since the submission."""
        return read_attributes(self.path)

    def blocked_reason(self, state: ExperimentState) -> str:
        """Return why it should run but is blocked, and how to repair that; "" if it is not."""
        from detbuild.controller.lease import blocked_reason

        return blocked_reason(self.folder, state)

    def limits(self) -> Limits | None:
        """Return the limits of each trial; None without a container or a readable config."""
        from detbuild.runtime.limits import cpu_limit_text, memory_limit_text, requested_limits

        header, limits = self.header(), requested_limits(self.folder)
        if header.local or limits is None:
            return None
        return Limits(
            memory_limit_text(limits.memory, header.engine_memory),
            cpu_limit_text(limits.cpus, header.engine_cpus),
            limits.read_only_root,
        )

    def trial(self, number: int, *, progress: bool = True) -> Trial:
        """Return one trial; without `progress` by the journal alone.

        Raises:
            ConfigError: It does not exist.
        """
        return read_trial(self.connection, self.folder, number, progress=progress)

    def trial_of(self, state: TrialState) -> Trial:
        """Return the handle of a trial whose state was read already."""
        return Trial(self.connection, self.folder, state)

    def trial_documents(self, state: ExperimentState) -> list[documents.Document]:
        """Return "trials" of `detbuild describe --json`."""
        return documents.trials(state, self.folder)

    def logs(self, trial_id: int) -> TrialLogs:
        """Return the logs of a trial, which need not exist yet."""
        from detbuild.api.logs import TrialLogs

        return TrialLogs(self.folder, trial_id)

    def checkpoints(self) -> list[Checkpoint]:
        """Return its checkpoints, by trial and newest first."""
        from detbuild.api.checkpoint import of_folder

        return of_folder(self.connection, self.folder)

    def best_checkpoints(
        self, metric: str | None = None, *, smaller_is_better: bool | None = None
    ) -> list[Checkpoint]:
        """Return the best checkpoint of each trial, best first; by default by the searcher's metric."""
        from detbuild.api.checkpoint import goal_of, ranked

        of_trials: dict[int, Checkpoint] = {}
        for one in ranked(self.checkpoints(), goal_of(self.header(), metric, smaller_is_better)):
            of_trials.setdefault(one.found.trial_id, one)
        return list(of_trials.values())

    def best_checkpoint(self) -> Checkpoint | None:
        """Return the best complete checkpoint; if none was validated, the newest of the first trial."""
        intact = (one for one in self.checkpoints() if one.found.state == "COMPLETED")
        return next(iter(self.best_checkpoints()), None) or next(intact, None)

    def pause(self) -> ExperimentState:
        """Stop it after a checkpoint, until it is activated; return its state before."""
        return self._request(Verb.PAUSE)

    def activate(self) -> ExperimentState:
        """Unpause it."""
        return self._request(Verb.ACTIVATE)

    def cancel(self) -> ExperimentState:
        """Stop it after a final checkpoint."""
        return self._request(Verb.CANCEL)

    def kill(self) -> ExperimentState:
        """Stop it at once; training since its last checkpoint is lost."""
        return self._request(Verb.KILL)

    def kill_trial(self, trial_id: int) -> TrialState:
        """Stop one trial at once, others keep running; return its state before."""
        return self._request(Verb.KILL, trial_id).trials[trial_id]

    def _request(self, verb: Verb, trial_id: int | None = None) -> ExperimentState:
        from detbuild.controller.requests import request

        return request(self.connection.home, self.id, verb, trial_id)

    def resume(self) -> bool:
        """Restart its controller if it has work left and none; return whether one was started."""
        from detbuild.controller.requests import has_work_left, resume_one

        return has_work_left(self.folder) and resume_one(self.folder)

    def continue_(self, overrides: Sequence[str] = (), file: Path | None = None) -> int:
        """Continue what was not completed, with a changed config; return the number of the request."""
        from detbuild.controller.requests import continue_

        return continue_(self.connection.home, self.id, overrides, file)

    def is_idle_here(self, *, ended: bool) -> bool:
        """Whether it is local, so that it continues in the foreground, and paused, or `ended` too."""
        states = (State.PAUSED, *ENDED) if ended else (State.PAUSED,)
        return self.header().local and self.journaled().state in states

    def activate_here(self, emit: Emit) -> ExperimentState:
        """Unpause it in the foreground, until it has ended."""
        from detbuild.controller.requests import request_activate

        return self._run_here(request_activate, emit)

    def continue_here(
        self, emit: Emit, overrides: Sequence[str] = (), file: Path | None = None
    ) -> ExperimentState:
        """Continue it in the foreground, until it has ended."""
        from detbuild.controller.requests import request_continue

        return self._run_here(partial(request_continue, overrides=overrides, file=file), emit)

    def _run_here(self, ask: Callable[[ExperimentFolder], int], emit: Emit) -> ExperimentState:
        from detbuild.controller.requests import continue_local

        return continue_local(self.folder, ask, self.connection.environ, emit)

    def follow(self, emit: Emit, *, since: int = 0) -> ExperimentState:
        """Emit past and new events until it has ended; `since` is the number of a request."""
        from detbuild.controller.requests import follow

        return follow(self.connection.home, self.id, emit, since=since)

    def wait(self) -> ExperimentState:
        """Wait until it has ended, also while it is paused, and return its state."""
        from detbuild.controller.requests import wait

        return wait(self.connection.home, self.id, self.connection.emit)

    def watcher(self, emit: Emit) -> RequestWatcher:
        """Return a watchdog that restarts its controller while a caller waits for its end."""
        from detbuild.controller.requests import RequestWatcher

        return RequestWatcher(self.folder, emit)

    def needs_activation(self) -> bool:
        """Whether it is paused without a pending request, so that waiting for its end may never return."""
        from detbuild.controller.requests import needs_controller

        return self.journaled().state == State.PAUSED and not needs_controller(self.folder)

    def change(self, **attributes: object) -> Attributes:
        """Change attributes, e.g. its name, description, labels, priority or weight.

        Raises:
            ConfigError: A new value breaks a rule.
        """
        return change_attributes(self.path, lambda before: replace(before, **attributes))  # type: ignore[arg-type]

    def add_label(self, label: str) -> Attributes:
        """Add a label."""
        labels = self.header().labels
        return change_attributes(self.path, lambda before: with_label(before, labels, label))

    def remove_label(self, label: str) -> Attributes:
        """Remove a label.

        Raises:
            ConfigError: It does not have the label.
        """
        labels = self.header().labels
        if label not in labels:
            there = ", ".join(labels) or "none"
            raise ConfigError(f"experiment {self.id} has no label {label}", hint=f"its labels: {there}")
        return change_attributes(self.path, lambda before: without_label(before, labels, label))

    def set_retention(self, **kept: int) -> tuple[str, ...]:
        """Set how many checkpoints to keep; return those deleted at once, if it has ended."""
        self.change(**kept)
        return self.collect().garbage if self.journaled().over else ()

    def collect(self, *, dry_run: bool = False, **kept: int) -> Collection:
        """Delete checkpoints outside its retention policy, with other numbers to keep if given.

        Raises:
            ConfigError: It has not ended, or its checkpoints are inside its containers.
        """
        from detbuild.controller.checkpoints import collect, policy

        home = self.connection.home
        return collect(home, self.id, replace(policy(home, self.id), **kept), dry_run=dry_run)

    def download_code(self, target: Path) -> None:
        """Copy its code out of its image into the new directory `target`."""
        from detbuild.controller.code import download_code

        download_code(self.connection.home, self.folder, target, self.connection.connect)

    def delete(self, *, force: bool = False) -> None:
        """Delete it with its checkpoints, wherever they are stored.

        Args:
            force: Even if its checkpoints are registered or the source of another experiment, or its engine
                does not answer.

        Raises:
            ConfigError: It has not ended, or its checkpoints are in use.
        """
        from detbuild.controller.deletion import delete

        delete(self.connection.home, self.id, self.connection.connect, force=force)
