"""The search of a local experiment: the same method, segments and journal, and one run at a time."""

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
from detbuild.search.methods import search_method
from detbuild.store import journal
from detbuild.store.output import tail
from detbuild.store.runs import read_run
from detbuild.store.states import State, StopVerb, stronger
from detbuild.store.submitted import config_of, search_config_of
from determined._run_info import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.runs import RunRecords
    from detbuild.store.states import TrialState
    from determined._run_info import RunInfo

_ROUNDS = 50  # of looks for processes that are left
_DYING = 10_000  # milliseconds for the kernel to bury one; it is longer only where a disk hangs
_LEFT = "its process ended before the search did"


class LocalSearch:
    """Gives one run after the other. No run is tried again: the person is there to see why it failed."""

    def __init__(self, folder: ExperimentFolder) -> None:
        apply_pending_requests(JournaledState(folder=folder))
        self.journaled = JournaledState(folder=folder)
        self._config = config = config_of(folder)
        method = search_method(search_config_of(folder), Path(self.journaled.state.header.context_dir))
        self._search = Search(self.journaled, method, config)
        self._policies = policies_of(config)
        self._listener: RecordListener | None = None

    def next_run(self) -> RunInfo | None:
        """What the next run is told; None when the experiment is over, or paused."""
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
        """Its process is there."""
        self.journaled.record(journal.RunCreated(trial_id=info.trial_id, run=info.run, container=""))
        self._listener = RecordListener(
            self.journaled, self._search, self._policies, trial_id=info.trial_id, run=info.run
        )

    def poll(self, info: RunInfo) -> StopVerb:
        """Take in what the run reports; return what it is asked to stop for."""
        apply_requests(self.journaled)
        if self._listener is not None:
            self._listener.poll()
        return stronger(self.journaled.state.stop, self.journaled.state.trials[info.trial_id].stop)

    def ended(self, info: RunInfo, *, exit_code: int) -> None:
        """Its process is gone."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("a run ended that was not created")
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
    """Write down how a local experiment ended whose process is gone; the caller holds its lease."""
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
    """Kill what is left of a local run whose supervisor is gone: all that was started with its folder."""
    for _ in range(_ROUNDS):
        processes = Path("/proc").glob("[0-9]*")  # allowed: of the kernel
        if not sum(_killed(place, run_dir) for place in processes):
            return


def _killed(place: Path, run_dir: str) -> bool:
    """Whether the process is one of the run: it is killed, and gone unless the kernel cannot end it."""
    wanted = f"{RUN_DIR_VARIABLE}={run_dir}".encode()
    with suppress(OSError):
        descriptor = os.pidfd_open(int(place.name))  # so that no other process gets the signal
        try:
            environ = (place / "environ").read_bytes()  # allowed: of the kernel
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
    """How a run ended.

    Args:
        book: Of the experiment.
        trial: Whose run it was.
        run: Its number.
        exit_code: None when the process that knew it is gone.
        records: All that it told.
    """
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
