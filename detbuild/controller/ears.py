"""Reads the records and output of one run, and forwards them to the search and the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.controller.policies import Policy, PolicyWatch
from detbuild.launch.failure import Outcome
from detbuild.store import journal
from detbuild.store.records import RecordFile, RunRecords, extended

if TYPE_CHECKING:
    from detbuild.controller.book import JournaledState
    from detbuild.controller.search import Search
    from detbuild.store.state import RunState

_MOST = 64 << 20  # bytes of records in one poll, so that a run that floods does not block the others


class RecordListener:
    """A reader of one run. Its memory is only a cache: everything can be read again."""

    def __init__(
        self,
        journaled: JournaledState,
        search: Search,
        policies: tuple[Policy, ...],
        *,
        trial_id: int,
        run: int,
    ) -> None:
        self._journaled, self._search = journaled, search
        self._trial_id, self._number = trial_id, run
        folder = journaled.folder.run(trial_id, run)
        self._file = RecordFile(folder)
        self._watch = PolicyWatch(folder, policies)
        self._reported = 0  # validations forwarded to the search
        self.records = RunRecords()

    @property
    def run(self) -> RunState:
        runs = self._journaled.state.trials[self._trial_id].runs
        return next(run for run in runs if run.run == self._number)

    def poll(self, *, over: bool = False) -> None:
        """Read new records, or all that are left when the run is `over`.

        Raises:
            DiskFullError: No free space for the journal; the next poll retries.
        """
        lines = self._file.rest() if over else self._file.new(_MOST)
        self.records = replace(extended(self.records, lines), unreadable=self._file.unreadable)
        for validation in self.records.validations[self._reported :]:
            self._search.on_validation(self._trial_id, validation)
            self._reported += 1
        for policy in self._watch.matched(self.run.policies, over=over):
            self._journaled.record(
                journal.PolicyMatched(
                    trial_id=self._trial_id,
                    run=self._number,
                    name=policy.name,
                    cancels_retries=policy.cancels_retries,
                )
            )


def matched(run: RunState) -> str:
    """Return which log policies the run's output matched, as text."""
    if not run.policies:
        return ""
    return f"its log matches the polic{'ies' if len(run.policies) > 1 else 'y'} {', '.join(run.policies)}"


def apply_policies(finished: journal.RunFinished, run: RunState) -> journal.RunFinished:
    """Apply the log policies that the run's output matched."""
    if not run.policies or Outcome(finished.outcome).succeeded:
        return finished
    message = "; ".join(text for text in (finished.message, matched(run)) if text)
    if not run.retries_cancelled or not finished.counts:
        return replace(finished, message=message)
    return replace(finished, message=f"{message}, which cancels retries", retry=False)
