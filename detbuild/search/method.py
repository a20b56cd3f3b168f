"""What a search method is: events in, decisions out. It starts nothing and stores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.decisions import Action, SearchEvent


class SearchMethod(Protocol):
    """One search, from `Began` on: told of every event in turn, it answers with what to do next.

    It starts nothing, stores nothing and asks for neither time nor chance: equal events give equal decisions.
    """

    @property
    def needs_every_validation(self) -> bool:
        """What it is told of as `Validated`.

        True: every validation, as it comes. False: one for each `Train`, when its run has done what it asked.
        """

    @property
    def progress(self) -> float:
        """How much of the search is done, 0..1; it never falls."""

    @property
    def share(self) -> float:
        """What a trial adds to `progress` when it has ended; 0 where some trials count more than others."""

    def decide(self, event: SearchEvent) -> Sequence[Action]: ...

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Take up what was decided before a restart.

        Raises:
            SearchError: It would decide otherwise now; what was recorded cannot be continued.
        """
