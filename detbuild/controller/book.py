"""An experiment's state that is journaled before it changes (write-ahead)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.store.state import StateFold

if TYPE_CHECKING:
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.journal import Fact, Inbox, Request


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
