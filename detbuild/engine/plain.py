"""Plain questions to an engine behind a Unix socket of this host, without docker-py.

Importing docker-py takes as long as creating a container does, and most commands ask one or two things.
"""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader

_CHUNKED = "chunked"
_OK = 200


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  (the engine's)
        """Raise ValueError when it is not JSON."""
        return json.loads(self.body)


def target(path: str, params: Mapping[str, str]) -> str:
    """A path as it stands in a request; references of images keep their slashes and colons."""
    query = f"?{urlencode(params)}" if params else ""
    return quote(path, safe="/:") + query


class PlainApi:
    """Speaks HTTP/1.1 over connections that stay open from one question to the next.

    `deadline` is in seconds, for each answer. Every method raises OSError or ValueError when the engine is
    away, does not answer in time, or says what is not HTTP.
    """

    def __init__(self, path: str, *, deadline: float) -> None:
        self._path, self._deadline = path, deadline
        self._idle: list[_Wire] = []
        self._version: str | None = None

    @property
    def version(self) -> str:
        """The API's version, as the engine offers it."""
        if self._version is None:
            with self._wire(self._deadline) as wire:
                status, headers, _ = wire.ask("GET", "/_ping", b"")
            if status != _OK:
                raise ConnectionError(f"the engine answers {status} to a ping")
            self._version = headers.get("api-version", "")
        return self._version

    def call(
        self, method: str, path: str, *, params: Mapping[str, str], body: object, timeout: float | None
    ) -> Answer:
        """Ask; the body travels as JSON. `timeout` replaces the deadline."""
        prefix = f"/v{self.version}" if self.version else ""
        payload = b"" if body is None else json.dumps(body).encode()
        with self._wire(self._deadline if timeout is None else timeout) as wire:
            status, _, content = wire.ask(method, prefix + target(path, params), payload)
        return Answer(status, content)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _wire(self, timeout: float) -> Iterator[_Wire]:
        """A connection of one's own; after anything but a whole answer it is not used again."""
        wire = self._waiting() or _Wire(self._path, timeout)
        wire.socket.settimeout(timeout)
        try:
            yield wire
        except BaseException:
            wire.close()
            raise
        if wire.lasts:
            self._idle.append(wire)
        else:
            wire.close()

    def _waiting(self) -> _Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.quiet():
                return wire
            wire.close()  # the engine hung up meanwhile
        return None


class _Wire:
    def __init__(self, path: str, timeout: float) -> None:
        self.lasts = True
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._file: BufferedReader = self.socket.makefile("rb")

    def ask(self, method: str, where: str, payload: bytes) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {where} HTTP/1.1", "Host: docker", f"Content-Length: {len(payload)}"]
        if payload:
            lines.append("Content-Type: application/json")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + payload)
        _, _, said = self._line().partition(" ")
        status = int(said[:3])
        headers = dict(self._headers())
        self.lasts = headers.get("connection", "").lower() != "close"
        return status, headers, self._body(status, headers)

    def quiet(self) -> bool:
        """Whether nothing has come since the last answer, not even the end."""
        self.socket.settimeout(0)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._line():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _body(self, status: int, headers: Mapping[str, str]) -> bytes:
        if status in {204, 304}:
            return b""
        if headers.get("transfer-encoding", "").lower() == _CHUNKED:
            return b"".join(self._chunks())
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        self.lasts = False
        return self._file.read()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line().partition(";")[0], 16):
            yield self._exactly(size)
            self._line()
        while self._line():
            pass  # trailers

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the engine hung up")
        return line.decode("latin-1").rstrip("\r\n")

    def _exactly(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ConnectionError("the engine hung up")
        return content
