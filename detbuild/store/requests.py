"""What people ask of an experiment: a file that only grows, read by whoever drives the experiment.

A request is on disk before anybody acts on it; the journal says which of them were heeded.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from detbuild.store.files import append_synced, file_errors
from detbuild.store.lines import LineFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Verb = Literal["kill", "cancel", "pause", "activate", "continue"]
VERBS: Final = get_args(Verb)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    number: int  # 1, 2, 3 ... in the order in which they are heeded
    verb: Verb
    trial_id: int | None = None  # None: all trials
    config: Mapping[str, object] | None = None  # the resolved config that a `continue` goes on with


class Inbox:
    """The requests of one experiment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineFile(path)

    def put(
        self, verb: Verb, *, trial_id: int | None = None, config: Mapping[str, object] | None = None
    ) -> int:
        """Add a request and return its number; it is on disk when this returns.

        Raises:
            DiskFullError: There is no room for it.
            EngineError: The file cannot be written.
        """
        with _alone(self._path):
            number = sum(1 for _ in LineFile(self._path).new()) + 1
            body = {"n": number, "verb": verb, "trial_id": trial_id, "config": config}
            append_synced(self._path, json.dumps(body, separators=(",", ":")).encode() + b"\n")
        return number

    def after(self, number: int) -> tuple[Request, ...]:
        """The requests beyond a number that were put since the last look."""
        requests = map(_parsed, self._lines.new())
        return tuple(request for request in requests if request and request.number > number)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two requests at once must not get one number."""
    lock = path.with_suffix(".lock")
    with file_errors(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _parsed(line: bytes) -> Request | None:
    try:
        raw = json.loads(line)
        if raw["verb"] not in VERBS:
            return None
        return Request(
            number=int(raw["n"]), verb=raw["verb"], trial_id=raw.get("trial_id"), config=raw.get("config")
        )
    except (ValueError, KeyError, TypeError):
        return None  # a damaged line asks for nothing
