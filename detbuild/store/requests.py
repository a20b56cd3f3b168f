"""What people ask of an experiment: a file that only grows, read by whoever drives the experiment.

A request is on disk before anybody acts on it; the journal says which were applied.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from detbuild.store.files import alone, append_synced
from detbuild.store.lines import LineFile
from detbuild.store.reading import as_map
from detbuild.store.typed import typed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Verb = Literal["kill", "cancel", "pause", "activate", "continue"]
VERBS: Final = get_args(Verb)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    number: int  # 1, 2, 3 ... in the order in which they are applied
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
        with alone(self._path.with_suffix(".lock")):  # two requests at once must not get one number
            number = sum(1 for _ in LineFile(self._path).new()) + 1
            body = {"n": number, "verb": verb, "trial_id": trial_id, "config": config}
            line = json.dumps(body, separators=(",", ":")).encode() + b"\n"
            append_synced(self._path, line)
        return number

    def after(self, number: int) -> tuple[Request, ...]:
        """The requests beyond a number that were put since the last look."""
        requests = map(_parsed, self._lines.new())
        return tuple(request for request in requests if request and request.number > number)


def _parsed(line: bytes) -> Request | None:
    try:
        raw = as_map(json.loads(line))
        if raw.get("verb") not in VERBS:
            return None
        return typed(Request, {**raw, "number": raw.get("n")})
    except (ValueError, RecursionError):
        return None  # a damaged line asks for nothing
