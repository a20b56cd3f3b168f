"""Applies requests: each once, in order, including those made while no controller ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from detbuild.store import journal
from detbuild.store.experiment_dir import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.controller.book import JournaledState
    from detbuild.store.journal import Request


LENGTHENED: Final = frozenset(
    {"single", "random", "grid"}
)  # searches whose decisions do not depend on results


def apply_requests(journaled: JournaledState) -> None:
    """Apply the requests of a running experiment.

    A `continue` of one at rest is left to the next controller, which reads the config again.
    """
    for request in journaled.requests():
        if request.verb == "continue" and journaled.state.idle:
            return
        _apply(journaled, request)


def apply_pending_requests(journaled: JournaledState) -> None:
    """Apply the requests made while no controller ran; call it before reading the config."""
    for request in journaled.requests():
        _apply(journaled, request)


def _apply(journaled: JournaledState, request: Request) -> None:
    length: Mapping[str, object] | None = None
    if request.verb == "continue" and request.config is not None and journaled.state.idle:
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
