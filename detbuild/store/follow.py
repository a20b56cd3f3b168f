"""Follows the growing files of an experiment and emits each change once as an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.events import (
    Emit,
    ExperimentContinued,
    ExperimentEnded,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
    Warned,
)
from detbuild.store import journal
from detbuild.store.logs import OutputFile
from detbuild.store.records import RecordFile

if TYPE_CHECKING:
    from detbuild.store.experiment_dir import ExperimentFolder

STREAMS = ("stdout", "stderr")


class _RunTail:
    """Follows the records and the output of one run."""

    def __init__(self, folder: ExperimentFolder, trial_id: int, run: int) -> None:
        self.trial_id = trial_id
        self.run = run
        run_folder = folder.run(trial_id, run)
        self._records = RecordFile(run_folder)
        self._outputs = {stream: OutputFile(run_folder, stream) for stream in STREAMS}

    def emit(self, emit: Emit, *, over: bool) -> None:
        """Emit new records and output; all of the rest if the run is `over`."""
        for stream, output in self._outputs.items():
            for text in output.rest() if over else output.new():
                emit(RunOutput(self.trial_id, self.run, stream, text))
        for line in self._records.rest() if over else self._records.new():
            emit(RunRecord(self.trial_id, self.run, line.record))


class ExperimentTail:
    """Follows the journal and the runs of one experiment, from its start or from request `since` on."""

    def __init__(self, folder: ExperimentFolder, *, since: int = 0) -> None:
        self.folder = folder
        self.over = False
        self._since = since
        self._journal = journal.JournalFile(folder.journal_file)
        self._reported = 0  # damaged places of the journal
        self._runs: dict[tuple[int, int], _RunTail] = {}

    def emit(self, emit: Emit) -> None:
        """Emit what happened since the last call."""
        for entry in self._journal.new():
            if self._since:
                self._skip(entry.fact, emit)
            else:
                self._emit_fact(entry.fact, emit)
        for place in self._journal.damage[self._reported :]:
            emit(Warned(f"the journal of experiment {self.folder.id} is damaged: {place}"))
        self._reported = len(self._journal.damage)
        for tail in self._runs.values():
            tail.emit(emit, over=False)

    def _skip(self, fact: journal.Fact, emit: Emit) -> None:
        """Skip facts before the request."""
        if isinstance(fact, journal.RequestApplied) and fact.number >= self._since:
            self._since = 0
            emit(ExperimentContinued(self.folder.id, str(self.folder.path)))

    def _emit_fact(self, fact: journal.Fact, emit: Emit) -> None:
        match fact:
            case journal.Waiting(trial_id=trial_id, why=why) if why:
                running = any(trial == trial_id for trial, _ in self._runs)
                emit(TrialDelayed(trial_id, why, running))
            case journal.RunCreated(trial_id=trial_id, run=run, container=container, gpu_ids=gpu_ids):
                self._runs[trial_id, run] = _RunTail(self.folder, trial_id, run)
                emit(RunStarted(trial_id, run, container, gpu_ids))
            case journal.RunFinished():
                self._end_run(fact, emit)
            case journal.TrialFinished(trial_id=trial_id, state=state, why=why):
                emit(TrialEnded(trial_id, state, why))
            case journal.Searched(progress=progress, share=share):
                emit(SearchAdvanced(progress, share))
            case journal.RequestApplied(verb=journal.Verb.CONTINUE):
                self.over = False
            case journal.ExperimentFinished(state=state, why=why):
                self.over = True
                emit(ExperimentEnded(self.folder.id, state, why))

    def _end_run(self, fact: journal.RunFinished, emit: Emit) -> None:
        tail = self._runs.pop((fact.trial_id, fact.run), None)
        if tail is not None:
            tail.emit(emit, over=True)
        why = "; ".join(text for text in (fact.message, fact.hint) if text)
        emit(RunEnded(fact.trial_id, fact.run, fact.exit_code, why, fact.retry))
