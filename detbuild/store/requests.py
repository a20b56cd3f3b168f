"""The queue of user requests to an experiment: an append-only file that its controller reads.

A request is synced to disk before it is applied; the journal records which were applied.
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
    number: int  # 1, 2, 3 ... in the order of application
    verb: Verb
    trial_id: int | None = None  # None: all trials
    config: Mapping[str, object] | None = None  # the resolved new config of a `continue`


class Inbox:
    """The requests of one experiment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineFile(path)

    def put(
        self, verb: Verb, *, trial_id: int | None = None, config: Mapping[str, object] | None = None
    ) -> int:
        """Add a request, synced to disk, and return its number.

        Raises:
            DiskFullError: The disk is full.
            EngineError: The file cannot be written.
        """
        with alone(self._path.with_suffix(".lock")):  # two requests at once must not get one number
            number = sum(1 for _ in LineFile(self._path).new()) + 1
            body = {"n": number, "verb": verb, "trial_id": trial_id, "config": config}
            line = json.dumps(body, separators=(",", ":")).encode() + b"\n"
            append_synced(self._path, line)
        return number

    def after(self, number: int) -> tuple[Request, ...]:
        """Return the requests after a number that were added since the last call."""
        requests = map(_parsed, self._lines.new())
        return tuple(request for request in requests if request and request.number > number)


def _parsed(line: bytes) -> Request | None:
    try:
        raw = as_map(json.loads(line))
        if raw.get("verb") not in VERBS:
            return None
        return typed(Request, {**raw, "number": raw.get("n")})
    except (ValueError, RecursionError):
        return None  # a damaged line is ignored
