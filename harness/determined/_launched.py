"""One process of a launch with several: how it joins the run, and how it reports its end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from determined._distributed import environment_group
from determined._group import Alone, GroupError
from determined._ranks import GROUP_DIR_VARIABLE
from determined._records import ExitReason
from determined.launch import _stacks
from determined.launch._reports import EndReported, send_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined._chief import ChiefRun
    from determined._group import Group
    from determined._outcome import Outcome

# Errors of torch and its back-ends when another process has ended first.
_CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
_GOOD = {ExitReason.COMPLETED, ExitReason.PREEMPTED, ExitReason.STOPPED}


def launch_directory() -> Path | None:
    """Return the directory of detbuild's launcher; None if it did not start this process."""
    directory = os.environ.get(GROUP_DIR_VARIABLE)
    return Path(directory) if directory else None


def launched_group() -> Group:
    """Return the processes of detbuild's launcher, or this one alone without a launcher.

    Raises:
        GroupError: one of them did not start.
    """
    if launch_directory() is None:
        return Alone()
    group = environment_group()
    prepare_rank(group.rank)
    return group


def prepare_rank(rank: int) -> None:
    """Dump stacks on request, and log warnings only, except on rank 0."""
    _stacks.answer(os.environ, rank)
    if rank:
        logging.getLogger("determined").setLevel(logging.WARNING)


def report_end(run: ChiefRun | None, outcome: Outcome, *, rank: int = 0) -> None:
    """Report the end of this process.

    In a launch, the launcher records failures: only it knows which one was the first.
    """
    launched = launch_directory() is not None
    if run is not None and not (launched and outcome.ended.reason not in _GOOD):
        run.end(outcome.ended)
    elif run is not None:
        run.close()
    if launched:
        consequence = is_consequence(outcome.error)
        report = EndReported(
            rank=rank, ended=outcome.ended, code=int(outcome.exit_code), consequence=consequence
        )
        send_report(os.environ, report)


def is_consequence(error: BaseException | None) -> bool:
    """Whether an error only shows that another process of the launch has ended."""
    if error is None or launch_directory() is None:
        return False
    return isinstance(error, GroupError) or any(words in str(error) for words in _CONSEQUENCES)


@contextmanager
def on_sigterm(ask: Callable[[], object]) -> Iterator[None]:
    """Call `ask` on SIGTERM. Only a main thread can set handlers; other threads do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda _number, _frame: ask())
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that Python did not install cannot be restored
            signal.signal(signal.SIGTERM, previous)
