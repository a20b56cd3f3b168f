"""The search of a local experiment: the same method, segments and journal, one run at a time."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.book import JournaledState
from detbuild.controller.conclusion import conclusion
from detbuild.controller.ears import RecordListener, apply_policies
from detbuild.controller.heed import apply_pending_requests, apply_requests
from detbuild.controller.keeping import end_local, finish_checkpoints, restore_files
from detbuild.controller.policies import policies_of
from detbuild.controller.reported import run_request
from detbuild.controller.search import Search
from detbuild.launch.failure import Evidence, judge
from detbuild.launch.plan import local_run_info
from detbuild.launch.restart import End, Launch, ReportSegment, next_step
from detbuild.search.registry import search_method
from detbuild.store import journal
from detbuild.store.experiment_dir import config_of, search_config_of
from detbuild.store.logs import tail
from detbuild.store.records import read_run
from detbuild.store.state import State, StopVerb, stronger
from determined._run_info import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.records import RunRecords
    from detbuild.store.state import TrialState
    from determined._run_info import RunInfo

_ROUNDS = 50  # scans for remaining processes
_DYING = 10_000  # milliseconds for the kernel to end one; it takes longer only if a disk hangs
_LEFT = "its process ended before the search did"


class LocalSearch:
    """A source of runs, one after the other. Failed runs are not retried: the user sees why they failed."""

    def __init__(self, folder: ExperimentFolder) -> None:
        apply_pending_requests(JournaledState(folder=folder))
        self.journaled = JournaledState(folder=folder)
        self._config = config = config_of(folder)
        method = search_method(search_config_of(folder), Path(self.journaled.state.header.context_dir))
        self._search = Search(self.journaled, method, config)
        self._policies = policies_of(config)
        self._listener: RecordListener | None = None

    def next_run(self) -> RunInfo | None:
        """Return the info of the next run, or None if the experiment has ended or is paused."""
        state = self.journaled.state
        while not state.idle:
            apply_requests(self.journaled)
            if state.stop == StopVerb.PAUSE:
                self.journaled.record(journal.Paused())
                return None
            self._search.step()
            trial_id = next(iter(state.ready), None)
            trial = state.trials[trial_id] if trial_id is not None else None
            if trial is not None:
                info = self._further(trial)
                if info is not None:
                    return info
            elif state.living == 0 and (state.finishing or state.ending):
                end_local(self.journaled, conclusion(state))
            else:
                self._search.stalled()
        return None

    def created(self, info: RunInfo) -> None:
        """Journal that the process of a run was started."""
        self.journaled.record(journal.RunCreated(trial_id=info.trial_id, run=info.run, container=""))
        self._listener = RecordListener(
            self.journaled, self._search, self._policies, trial_id=info.trial_id, run=info.run
        )

    def poll(self, info: RunInfo) -> StopVerb:
        """Read the run's new records; return its stop verb, if any."""
        apply_requests(self.journaled)
        if self._listener is not None:
            self._listener.poll()
        return stronger(self.journaled.state.stop, self.journaled.state.trials[info.trial_id].stop)

    def ended(self, info: RunInfo, *, exit_code: int) -> None:
        """Journal how a run ended."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("run ended without being created")
        apply_requests(self.journaled)
        listener.poll(over=True)
        trial = self.journaled.state.trials[info.trial_id]
        finished = _finished(self.journaled, trial, info.run, exit_code, listener.records)
        self.journaled.record(apply_policies(finished, listener.run))

    def _further(self, trial: TrialState) -> RunInfo | None:
        stop = stronger(self.journaled.state.stop, trial.stop)
        step = next_step(
            trial, stop=stop, needs_every_validation=self._search.needs_every_validation, max_restarts=0
        )
        match step:
            case Launch():
                return self._intend(trial)
            case End(state=name, why=why):
                self.journaled.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
            case ReportSegment():
                self._search.segment_done(trial.id)
            case _:
                self._search.stalled()
        return None

    def _intend(self, trial: TrialState) -> RunInfo | None:
        folder, run = self.journaled.folder, len(trial.runs)
        request = run_request(self.journaled, trial, run)
        why = restore_files(self.journaled, request.checkpoints or request.source)
        if why:
            self.journaled.record(journal.TrialFinished(trial_id=trial.id, state=State.ERROR, why=why))
            return None
        info = local_run_info(self._config, request, folder, self.journaled.state.header)
        folder.prepare_run(info)
        self.journaled.record(journal.RunIntended(trial_id=trial.id, run=run, segment=trial.segment))
        return info


def finish_pending(folder: ExperimentFolder) -> None:
    """Journal how a local experiment ended whose process has died; the caller holds its lease."""
    journaled = JournaledState(folder=folder)
    apply_pending_requests(journaled)
    if journaled.state.over:
        finish_checkpoints(folder)
    if journaled.state.idle:
        return
    for trial_id in tuple(journaled.state.running):
        trial = journaled.state.trials[trial_id]
        if trial.open_run is not None:
            end_processes(str(folder.run(trial.id, trial.open_run.run).path))
            records = read_run(folder.run(trial.id, trial.open_run.run), over=True)
            journaled.record(_finished(journaled, trial, trial.open_run.run, None, records))
    if journaled.state.stop == StopVerb.PAUSE:
        journaled.record(journal.Paused())
        return
    for trial in tuple(journaled.state.trials.values()):
        if not trial.ended:
            stop = stronger(journaled.state.stop, trial.stop)
            step = next_step(trial, stop=stop, needs_every_validation=True, max_restarts=0)
            name, why = (step.state, step.why) if isinstance(step, End) else (State.ERROR, _LEFT)
            journaled.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
    alone = journaled.state.trials and config_of(folder).searcher.name == "single"
    if journaled.state.finishing or journaled.state.ending or alone:
        end_local(journaled, conclusion(journaled.state))
    else:
        end_local(journaled, journal.ExperimentFinished(state=State.ERROR, why=_LEFT))


def end_processes(run_dir: str) -> None:
    """Kill the remaining processes of a local run whose supervisor has died, found by its run directory."""
    for _ in range(_ROUNDS):
        processes = Path("/proc").glob("[0-9]*")  # allowed: a file of the kernel
        if not sum(_killed(process, run_dir) for process in processes):
            return


def _killed(process: Path, run_dir: str) -> bool:
    """Kill the process if it belongs to the run, and wait for its end; return whether it did."""
    wanted = f"{RUN_DIR_VARIABLE}={run_dir}".encode()
    with suppress(OSError):
        descriptor = os.pidfd_open(int(process.name))  # so that a reused PID does not get the signal
        try:
            environ = (process / "environ").read_bytes()  # allowed: a file of the kernel
            if wanted in environ.split(b"\0"):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                ended = select.poll()
                ended.register(descriptor, select.POLLIN)
                ended.poll(_DYING)
                return True
        finally:
            os.close(descriptor)
    return False


def _finished(
    journaled: JournaledState, trial: TrialState, run: int, exit_code: int | None, records: RunRecords
) -> journal.RunFinished:
    """Classify the end of a run; `exit_code` is None if it is unknown."""
    evidence = Evidence(
        records=records,
        exit_code=exit_code,
        stop=stronger(journaled.state.stop, trial.stop),
        tail=tail(journaled.folder.run(trial.id, run)),
        kind="process",
        directory=journaled.state.header.context_dir,
    )
    finished = judge(evidence, trial_id=trial.id, run=run, restarts_left=0)
    return replace(finished, retry=finished.retry and finished.asked == StopVerb.PAUSE)
