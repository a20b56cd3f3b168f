"""The state of an experiment that is journaled before it changes (write-ahead).

Requests are applied once each, in order, including those made while no controller ran. `conclusion` derives
the final state from those of the trials.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from detbuild.store import journal
from detbuild.store.experiment_dir import config_of
from detbuild.store.journal import ExperimentFinished
from detbuild.store.state import State, StateFold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.journal import Fact, Inbox, Request

LENGTHENED: Final = frozenset(
    {"single", "random", "grid"}
)  # searches whose decisions do not depend on results


@dataclass(kw_only=True, slots=True)
class JournaledState:
    """The state of an experiment; it is never ahead of the journal on disk."""

    folder: ExperimentFolder
    state: StateFold = field(init=False)
    _inbox: Inbox = field(init=False)
    _requests: list[Request] = field(init=False, default_factory=list)  # read, and not applied yet

    def __post_init__(self) -> None:
        self.state = StateFold(self.folder.header(), self.folder.entries())
        self._inbox = self.folder.inbox()

    def record(self, fact: Fact) -> None:
        """Write the fact to the journal, then apply it to the state.

        Raises:
            DiskFullError: No free space; nothing has changed.
        """
        self.state.enter(self.folder.record(fact))

    def requests(self) -> tuple[Request, ...]:
        """Return the requests that are not applied yet, in order."""
        self._requests += self._inbox.after(self.state.last_request)
        self._requests = [request for request in self._requests if request.number > self.state.last_request]
        return tuple(self._requests)


def conclusion(state: StateFold) -> ExperimentFinished:
    """Return COMPLETED if one trial completed, unless the search was canceled or failed."""
    if state.failure:
        return ExperimentFinished(state=State.ERROR, why=state.failure)
    order = (
        (State.CANCELED, State.COMPLETED, State.ERROR)
        if state.ending
        else (State.COMPLETED, State.ERROR, State.CANCELED)
    )
    for name in order:
        tally = state.tallies[name]
        if tally.count:
            return ExperimentFinished(state=name, why=tally.why)
    return ExperimentFinished(state=State.CANCELED, why="stopped before it began")


def apply_requests(journaled: JournaledState) -> None:
    """Apply the requests of a running experiment.

    A `continue` of one at rest is left to the next controller, which reads the config again.
    """
    for request in journaled.requests():
        if request.verb == journal.Verb.CONTINUE and journaled.state.idle:
            return
        _apply(journaled, request)


def apply_pending_requests(journaled: JournaledState) -> None:
    """Apply the requests made while no controller ran; call it before reading the config."""
    for request in journaled.requests():
        _apply(journaled, request)


def _apply(journaled: JournaledState, request: Request) -> None:
    length: Mapping[str, object] | None = None
    if request.verb == journal.Verb.CONTINUE and request.config is not None and journaled.state.idle:
        journaled.folder.replace_config(request.config, begun=journaled.state.began)
        length = _new_length(journaled)
    journaled.record(
        journal.RequestApplied(
            number=request.number, verb=request.verb, trial_id=request.trial_id, length=length
        )
    )


def _new_length(journaled: JournaledState) -> Mapping[str, object] | None:
    """Return the new length of all trials, or None if it is unchanged.

    Only searches that ignore results accept a new length; the others keep the lengths they decided on.
    """
    searcher, trial = config_of(journaled.folder).searcher, next(iter(journaled.state.trials.values()), None)
    if trial is None or searcher.name not in LENGTHENED or searcher.max_length in {None, trial.length}:
        return None
    return asdict(searcher.max_length)
