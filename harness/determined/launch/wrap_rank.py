"""Runs one rank's program with marked output: `python3 -m determined.launch.wrap_rank RANK program args...`.

Each line is prefixed by `[rank=N] `. RANK is a number, or names of environment variables, of which the first
that is set is used. Signals are forwarded; the exit code and the last lines are sent to the launcher.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO, TYPE_CHECKING

from determined._run.exit import die_with_parent
from determined._run.launched import RankExited, RankStarted, send_report

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL = 20  # lines
_LONGEST = 500  # characters of a line in the tail
_BLOCK = 1 << 16
_LINE = 1 << 20  # bytes; a longer one is forwarded in pieces
_ATOMIC = 4096  # bytes (PIPE_BUF): pieces of this size are never interleaved in a pipe
_REST = 1.0  # seconds for output that outlives the program
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_USAGE = "usage: python3 -m determined.launch.wrap_rank RANK program args...\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the program's exit code, 128 + n when signal n ended it."""
    rank, command = _parsed(list(sys.argv[1:] if argv is None else argv))
    if rank is None or not command:
        sys.stderr.write(_USAGE)
        return 2
    die_with_parent()
    try:
        program = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # signals to our group are forwarded to the program, not its children
            preexec_fn=die_with_parent,  # noqa: PLW1509  (there is no other thread yet)
        )
    except OSError as error:
        return _not_started(rank, command[0], error)
    for number in _FORWARDED:
        signal.signal(number, lambda came, _frame: program.send_signal(came))
    send_report(os.environ, RankStarted(rank, program.pid))
    tail: deque[str] = deque(maxlen=_TAIL)
    assert program.stdout is not None
    assert program.stderr is not None
    marks = [Mark(pipe, fd, _prefix(rank), tail) for pipe, fd in ((program.stdout, 1), (program.stderr, 2))]
    code = program.wait()
    for mark in marks:
        mark.join(_REST)
    send_report(os.environ, RankExited(rank=rank, code=code, tail=tuple(tail)))
    return 128 - code if code < 0 else code


class Mark(threading.Thread):
    """Copies one stream line by line, each with the prefix; a carriage return also ends a line."""

    def __init__(self, source: IO[bytes], target: int, prefix: bytes, tail: deque[str]) -> None:
        super().__init__(daemon=True)
        self._source, self._target, self._prefix, self._tail = source, target, prefix, tail
        self.start()

    def run(self) -> None:
        rest = b""
        while block := os.read(self._source.fileno(), _BLOCK):
            *lines, rest = (rest + block).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if len(rest) > _LINE:
                lines, rest = [*lines, rest], b""
            self._write(lines)
        self._write([rest] if rest else [])

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._tail.extend(line.decode(errors="replace")[:_LONGEST] for line in lines[-_TAIL:])
        piece = b""
        for line in lines:
            marked = self._prefix + line + b"\n"
            if len(piece) + len(marked) > _ATOMIC:
                self._put(piece)
                piece = b""
            piece += marked
        self._put(piece)

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._target, data) :]


def _prefix(rank: int) -> bytes:
    """Return the prefix of a rank's lines; "" if it is the only one."""
    return b"" if os.environ.get("WORLD_SIZE") == "1" else b"[rank=%d] " % rank


def _parsed(argv: list[str]) -> tuple[int | None, list[str]]:
    if not argv:
        return None, []
    names, command = argv[0], argv[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    if names.isdigit():
        return int(names), command
    values = (os.environ.get(name, "") for name in names.split(","))
    return next((int(value) for value in values if value.isdigit()), None), command


def _not_started(rank: int, program: str, error: OSError) -> int:
    message = f"cannot start {program}: {error.strerror}"
    sys.stderr.write(f"error: {message}\n")
    send_report(os.environ, RankExited(rank=rank, code=127, tail=(message,)))
    return 127


if __name__ == "__main__":
    sys.exit(main())
