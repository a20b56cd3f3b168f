"""Reports of the processes of a launch to their launcher: small datagrams over a socket in its directory."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from determined._ranks import GROUP_DIR_VARIABLE
from determined._records import Ended, ExitReason, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOCKET = "reports"
_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class RankStarted:
    """A rank's program has started."""

    rank: int
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndReported:
    """A trial's process reports how it ends."""

    rank: int
    ended: Ended
    code: int
    consequence: bool  # caused by the end of another process


@dataclass(frozen=True, kw_only=True, slots=True)
class RankExited:
    """A rank's program has ended."""

    rank: int
    code: int  # negative: minus the signal that ended it
    tail: tuple[str, ...]  # the last lines of its output


Report: TypeAlias = RankStarted | EndReported | RankExited


class Inbox:
    """The launcher's end of the socket."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / _SOCKET))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> list[Report]:
        """Return the reports since the last call."""
        reports: list[Report] = []
        with suppress(BlockingIOError):
            while True:
                reports.append(_decoded(self._socket.recv(_LARGEST)))
        return reports

    def close(self) -> None:
        self._socket.close()


def send_report(environ: Mapping[str, str], report: Report) -> None:
    """Send a report to the launcher in the environment, if it is still running."""
    directory = environ.get(GROUP_DIR_VARIABLE)
    if not directory:
        return
    data = json.dumps({"kind": type(report).__name__, **asdict(report)}).encode()
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.sendto(data, str(Path(directory, _SOCKET)))


def _decoded(data: bytes) -> Report:
    raw = json.loads(data)
    kind = raw.pop("kind")
    if kind == "RankStarted":
        return RankStarted(**raw)
    if kind == "RankExited":
        return RankExited(**{**raw, "tail": tuple(raw["tail"])})
    ended = raw.pop("ended")
    stage = Stage(ended["stage"]) if ended["stage"] else None
    return EndReported(ended=Ended(**{**ended, "reason": ExitReason(ended["reason"]), "stage": stage}), **raw)
