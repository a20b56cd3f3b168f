"""Talks to child processes of our own in lines of JSON: requests on their stdin, answers on their stdout."""

from __future__ import annotations

import math
import os
import select
import subprocess
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

from detbuild import codec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BLOCK: Final = 1 << 16  # bytes


class LineReader:
    """Reads whole lines from a pipe, with a timeout. The pipe's own buffer must not be read beside it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._poll = select.poll()  # `select.select` refuses descriptors above 1,023
        self._poll.register(self._descriptor, select.POLLIN)
        self._read = b""

    def line(self, wait: float) -> bytes | None:
        """Return the next line with its end, b"" after the last one, None if none comes in `wait` seconds."""
        until = time.monotonic() + wait
        while b"\n" not in self._read:
            if not self._poll.poll(math.ceil(max(until - time.monotonic(), 0) * 1000)):
                return None
            block = os.read(self._descriptor, _BLOCK)
            if not block:
                return b""
            self._read += block
        line, end, self._read = self._read.partition(b"\n")
        return line + end


class Child:
    """A child process that gets JSON objects, one a line, and answers with some.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, words: Sequence[str], **options: Any) -> None:  # noqa: ANN401  (those of Popen)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        assert self.process.stdout is not None
        self._lines = LineReader(self.process.stdout)

    def send(self, request: Mapping[str, object]) -> None:
        """Send a request; one to a process that has ended is lost, which `answer` reports."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(codec.line(request))
            self.process.stdin.flush()

    def answer(self, wait: float) -> dict[str, object] | None:
        """Return the next answer, or None if none comes in `wait` seconds.

        Raises:
            EOFError: The process has ended, or closed its stdout.
        """
        line = self._lines.line(wait)
        if line == b"":
            raise EOFError
        return None if line is None else codec.parsed(line)

    def close(self) -> None:
        """Kill the process; may be called again."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):  # unsent requests are lost with the process
                pipe.close()
