"""What all of the SDK needs of this host: a client, errors with hints, events for people."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detbuild.api.client import Client, docker_engine
from detbuild.errors import ConfigError, DetbuildError
from detbuild.events import Emit, Event, Warned, Working, ignore
from detbuild.progress import EventLines, lines_of
from determined._contract.run_info import home_of
from determined.common.api.errors import NotFoundException
from determined.experimental._say import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

connect = docker_engine
TrialId = str | int | tuple[int, int]


class NotFound(ConfigError, NotFoundException):  # noqa: N818  (as Determined names its own)
    """The experiment, trial, checkpoint or model does not exist; of Determined's error tree too."""


@contextmanager
def explained() -> Iterator[None]:
    """Add the hint to an error's text, for Python's traceback."""
    try:
        yield
    except DetbuildError as error:
        if error.hint and error.hint not in str(error):
            error.args = (f"{error}\n  hint: {error.hint}",)
        raise


@contextmanager
def found() -> Iterator[None]:
    """The same for a lookup: a missing object raises Determined's NotFoundException."""
    with explained():
        try:
            yield
        except ConfigError as error:
            raise NotFound(str(error), hint=error.hint) from error


def client(emit: Emit = ignore) -> Client:
    """Return the client of `$DETBUILD_HOME`; `emit` receives its warnings."""
    return Client(path=home_of(os.environ), environ=os.environ, connect=connect, emit=emit)


def trial_numbers(trial_id: TrialId) -> tuple[int, int]:
    """Parse a trial ID: `"3/2"` and `(3, 2)` are trial 2 of experiment 3; `3` and `"3"` its first trial.

    Raises:
        ValueError: It has another form.
    """
    if isinstance(trial_id, tuple):
        experiment, trial = trial_id
        return int(experiment), int(trial)
    experiment_id, _, number = str(trial_id).partition("/")
    try:
        return int(experiment_id), int(number or 1)
    except ValueError:
        raise ValueError(f"{trial_id!r} is not a trial; expected EXPERIMENT/TRIAL, e.g. '3/1'") from None


def lines_view() -> Emit:
    """Return an `emit` that prints a line per event: results on stdout, progress and hints on stderr."""
    return EventLines(_print).emit


def warnings_only(event: Event) -> None:
    """Print warnings and slow steps on stderr, for calls that return their result."""
    if isinstance(event, Warned | Working):
        for line in lines_of(event):
            _print(line, to_stderr=True)


def log_event(event: Event) -> None:
    """Log an event, in Determined's form `LEVEL: message`."""
    if isinstance(event, Warned):
        LOG.warning("%s%s", event.message, f"; {event.hint}" if event.hint else "")
        return
    for line in lines_of(event):
        LOG.info("%s", line)


def _print(line: str, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(f"{line}\n")
    stream.flush()
