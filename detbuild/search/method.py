"""The interface of a search method: events in, decisions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.decisions import Action, SearchEvent


class SearchMethod(Protocol):
    """One search: each event, from `Began` on, gives the next actions.

    It has no side effects and uses no clock and no outside randomness: equal events give equal actions.
    """

    @property
    def needs_every_validation(self) -> bool:
        """Whether the search receives every validation; else only the last one of each `Train`."""

    @property
    def progress(self) -> float:
        """Progress of the search, 0..1; it never falls."""

    @property
    def share(self) -> float:
        """What each ended trial adds to `progress`; 0 if that varies."""

    def decide(self, event: SearchEvent) -> Sequence[Action]: ...

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Replay an event with the actions that were recorded before a restart.

        Raises:
            SearchError: The actions would differ now, so the search cannot be continued.
        """
