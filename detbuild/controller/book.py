"""The journal of an experiment while it is driven: facts are written down, then believed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.store.ledger import StateFold

if TYPE_CHECKING:
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.journal import Fact
    from detbuild.store.requests import Inbox, Request


@dataclass(kw_only=True, slots=True)
class JournaledState:
    """`state` is never ahead of the journal on disk."""

    folder: ExperimentFolder
    state: StateFold = field(init=False)
    _inbox: Inbox = field(init=False)
    _requests: list[Request] = field(init=False, default_factory=list)  # read, and not applied yet

    def __post_init__(self) -> None:
        self.state = StateFold(self.folder.header(), self.folder.entries())
        self._inbox = self.folder.inbox()

    def record(self, fact: Fact) -> None:
        """Write the fact down, then believe it.

        Raises:
            DiskFullError: There is no room for it; nothing has changed.
        """
        self.state.enter(self.folder.record(fact))

    def requests(self) -> tuple[Request, ...]:
        """What people ask for and nobody has heeded, in order."""
        self._requests += self._inbox.after(self.state.last_request)
        self._requests = [request for request in self._requests if request.number > self.state.last_request]
        return tuple(self._requests)
