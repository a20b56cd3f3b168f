"""A client for an engine behind a local Unix socket, without docker-py.

Importing docker-py takes as long as creating a container, and most commands send only one or two requests.
"""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from io import BufferedReader

_OK = 200
_WITHOUT_BODY = frozenset({204, 304})


class UpgradeRefusedError(Exception):
    """The engine, or a proxy in front of it, does not upgrade connections."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  (the engine's)
        """Raise ValueError when it is not JSON."""
        return json.loads(self.body)


def target(path: str, params: Mapping[str, str]) -> str:
    """Encode a request target; image references keep their slashes and colons."""
    query = f"?{urlencode(params)}" if params else ""
    return quote(path, safe="/:") + query


def upgraded(sock: socket.socket, path: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Upgrade a fresh connection; return the bytes that arrived after the response header.

    Raises:
        UpgradeRefusedError: The engine did not switch protocols; the connection is closed.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: docker\r\n{lines}\r\n".encode("latin-1"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(1 << 12)
        if not piece:
            raise ConnectionError("the engine hung up")
        answer += piece
    head, _, early = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        sock.close()
        raise UpgradeRefusedError(head.split(b"\r\n")[0].decode("latin-1"))
    return early


def interrupt(sock: socket.socket) -> None:
    """Wake a thread that blocks in `recv`; closing the socket would not."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class UnixSocketClient:
    """An HTTP/1.1 client with keep-alive connections.

    `deadline` is the timeout of each response, in seconds. Every method raises OSError or ValueError if the
    engine cannot be reached, times out, or sends invalid HTTP.
    """

    def __init__(self, path: str, *, deadline: float) -> None:
        self._path, self._deadline = path, deadline
        self._idle: list[_HttpConnection] = []
        self._version: str | None = None

    @property
    def version(self) -> str:
        """The engine's API version."""
        if self._version is None:
            with self._wire(self._deadline) as wire:
                status, headers, _ = wire.ask("GET", "/_ping", b"")
            if status != _OK:
                raise ConnectionError(f"the engine answers {status} to a ping")
            self._version = headers.get("api-version", "")
        return self._version

    def call(
        self, method: str, path: str, *, params: Mapping[str, str], body: object, timeout: float | None
    ) -> Response:
        """Send a request with a JSON body. `timeout` replaces the deadline."""
        where = self._prefix + target(path, params)
        payload = b"" if body is None else json.dumps(body).encode()
        with self._wire(self._deadline if timeout is None else timeout) as wire:
            status, _, content = wire.ask(method, where, payload)
        return Response(status, content)

    @contextmanager
    def lines(
        self, path: str, *, params: Mapping[str, str], silence: float, watch: Future[None] | None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Post; give the status and the lines of the response, on a connection that is closed with the block.

        `silence` is the timeout of each line, in seconds. A failure of `watch` ends the wait.
        """
        where = self._prefix + target(path, params)
        wire = _HttpConnection(self._path, self._deadline if watch else silence)
        try:
            status, headers = wire.send("POST", where, b"")
            wire.socket.settimeout(silence)
            if watch is not None:
                watch.add_done_callback(lambda done: interrupt(wire.socket) if done.exception() else None)
            yield status, _lines(wire.pieces(status, headers))
        finally:
            wire.close()

    def upgrade(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[socket.socket, bytes]:
        """Return a raw upgraded connection and the bytes that arrived after the response header."""
        where = self._prefix + path
        sock = _connected(self._path, self._deadline)
        try:
            early = upgraded(sock, where, headers)
        except OSError:
            sock.close()
            raise
        return sock, early

    @property
    def _prefix(self) -> str:
        return f"/v{self.version}" if self.version else ""

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _wire(self, timeout: float) -> Iterator[_HttpConnection]:
        """Give a connection for one request; reuse it only after a complete response."""
        wire = self._idle_connection() or _HttpConnection(self._path, timeout)
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

    def _idle_connection(self) -> _HttpConnection | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.quiet():
                return wire
            wire.close()  # closed by the engine
        return None


class _HttpConnection:
    def __init__(self, path: str, timeout: float) -> None:
        self.lasts = True
        self.socket = _connected(path, timeout)
        self._file: BufferedReader = self.socket.makefile("rb")

    def ask(self, method: str, where: str, payload: bytes) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.send(method, where, payload)
        return status, headers, b"".join(self.pieces(status, headers))

    def send(self, method: str, where: str, payload: bytes) -> tuple[int, dict[str, str]]:
        """Send a request; return status and headers, with the body still to be read."""
        lines = [f"{method} {where} HTTP/1.1", "Host: docker", f"Content-Length: {len(payload)}"]
        if payload:
            lines.append("Content-Type: application/json")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + payload)
        _, _, said = self._line().partition(" ")
        status = int(said[:3])
        headers = dict(self._headers())
        self.lasts = headers.get("connection", "").lower() != "close"
        return status, headers

    def quiet(self) -> bool:
        """Whether the connection is open and has no unread data."""
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

    def pieces(self, status: int, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the body as it arrives."""
        if status in _WITHOUT_BODY:
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in headers:
            yield self._exactly(int(headers["content-length"]))
        else:
            self.lasts = False
            yield self._file.read()

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


def _connected(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from whole
    yield held
