"""Takes up what people ask for: each request once, in order, also those made while no controller ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from detbuild.store import journal
from detbuild.store.submitted import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.controller.book import Book
    from detbuild.store.requests import Request


LENGTHENED: Final = frozenset({"single", "random", "grid"})  # searches that decide nothing by results


def heed(book: Book) -> None:
    """Take up what is asked of an experiment that is being driven.

    A `continue` is for one at rest: it is left to the controller that comes next and reads the config.
    """
    for request in book.requests():
        if request.verb == "continue" and book.state.at_rest:
            return
        _heed(book, request)


def take_up(book: Book) -> None:
    """Take up what was asked for while nobody drove the experiment; its config is read after this."""
    for request in book.requests():
        _heed(book, request)


def _heed(book: Book, request: Request) -> None:
    length: Mapping[str, object] | None = None
    if request.verb == "continue" and request.config is not None and book.state.at_rest:
        book.folder.replace_config(request.config, begun=book.state.began)
        length = _new_length(book)
    book.record(
        journal.Heeded(number=request.number, verb=request.verb, trial_id=request.trial_id, length=length)
    )


def _new_length(book: Book) -> Mapping[str, object] | None:
    """How long all trials are to train now, if that is another length than before.

    Only a search that does not look at results can do with it: the others keep the lengths they decided on.
    """
    searcher, trial = config_of(book.folder).searcher, next(iter(book.state.trials.values()), None)
    if trial is None or searcher.name not in LENGTHENED or searcher.max_length in {None, trial.length}:
        return None
    return asdict(searcher.max_length)
