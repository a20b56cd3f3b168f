"""A gRPC server on one open connection, over which the engine calls back."""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, RequestReceived, StreamReset
from h2.exceptions import ProtocolError

Metadata = Mapping[str, tuple[str, ...]]

NOT_FOUND, UNIMPLEMENTED = 5, 12

_PREFIX = struct.Struct(">BI")  # compressed or not, length
_BUFFERED = 1 << 20  # bytes buffered for the socket before calls are paused
_SILENCE = 60.0  # seconds; BuildKit checks our health every few seconds


class GrpcError(Exception):
    """Ends a call with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call(Protocol):
    """One call: received messages are pushed in, messages to send are pulled out."""

    def receive(self, message: bytes) -> None: ...

    def messages(self) -> Iterator[bytes | None]:
        """Yield the messages to send; None while more input is needed."""


Handler = Callable[[Metadata], Call]


@dataclass
class Unary:
    """A call with one request and one reply."""

    answer: Callable[[bytes], bytes]
    request: bytes | None = None

    def receive(self, message: bytes) -> None:
        self.request = message

    def messages(self) -> Iterator[bytes | None]:
        while self.request is None:
            yield None
        yield self.answer(self.request)


@dataclass
class _Open:
    """A call in progress, with its input and output buffers."""

    call: Call
    messages: Iterator[bytes | None]
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    status: tuple[int, str] | None = None  # set when the call has ended, before `unsent` is sent


class GrpcServer:
    """Serves calls until the peer disconnects, times out or `close` is called (from any thread)."""

    def __init__(
        self,
        sock: socket.socket,
        handlers: Mapping[str, Handler],
        *,
        early: bytes = b"",
        silence: float = _SILENCE,
    ) -> None:
        self._sock, self._handlers, self._silence = sock, handlers, silence
        self._http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._http.initiate_connection()
        self._out = bytearray()
        self._calls: dict[int, _Open] = {}
        self._open = True
        self._wake, self._waker = socket.socketpair()
        self._early = early

    def close(self) -> None:
        with suppress(OSError):
            self._waker.send(b"x")

    def serve(self) -> None:
        """Serve calls; raise TimeoutError if the peer sends nothing for too long."""
        self._sock.setblocking(False)
        with self._sock, self._wake, self._waker, selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            self._feed(self._early)
            heard = time.monotonic()
            while self._open:
                moved = self._advance()
                if self._exchange(selector, 0 if moved else self._silence):
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._silence:
                    raise TimeoutError(f"nothing heard for {self._silence:.0f} s")

    # the socket

    def _exchange(self, selector: selectors.BaseSelector, timeout: float) -> bool:
        """Send and receive, waiting at most `timeout`; return whether data arrived."""
        self._out += self._http.data_to_send()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        selector.modify(self._sock, wanted)
        ready = {key.fileobj: events for key, events in selector.select(timeout)}
        if self._wake in ready:
            self._open = False
            return False
        events = ready.get(self._sock, 0)
        if events & selectors.EVENT_WRITE:
            self._send()
        return bool(events & selectors.EVENT_READ) and self._receive()

    def _send(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError:  # the peer disconnected; reading fails too
            self._open = False

    def _receive(self) -> bool:
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            except OSError:
                data = b""
            if not data:
                self._open = False
                return False
            self._feed(data)

    # HTTP/2

    def _feed(self, data: bytes) -> None:
        try:
            events = self._http.receive_data(data) if data else []
        except ProtocolError:
            self._open = False
            return
        # a call may be reset further on in the same data: h2 has dropped it already
        given_up = {event.stream_id for event in events if isinstance(event, StreamReset)}
        for event in events:
            self._handle(event, given_up)

    def _handle(self, event: Event, given_up: Collection[int]) -> None:
        if isinstance(event, RequestReceived) and event.stream_id not in given_up:
            self._begin(event.stream_id, [(str(key), str(value)) for key, value in event.headers])
        elif isinstance(event, DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self._calls:
                self._take(self._calls[event.stream_id], event.data)
        elif isinstance(event, StreamReset):
            self._calls.pop(event.stream_id, None)
        elif isinstance(event, ConnectionTerminated):
            self._open = False

    def _begin(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        metadata: dict[str, tuple[str, ...]] = {}
        for key, value in headers:
            metadata[key] = (*metadata.get(key, ()), value)
        (path,) = metadata[":path"]
        handler = self._handlers.get(path)
        if handler is None:
            self._refuse(stream_id, GrpcError(UNIMPLEMENTED, f"unknown method {path}"))
            return
        call = handler(metadata)
        self._http.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        self._calls[stream_id] = _Open(call, call.messages())

    def _refuse(self, stream_id: int, error: GrpcError) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        self._http.send_headers(stream_id, [*head, *_status(error.status, str(error))], end_stream=True)

    @staticmethod
    def _take(call: _Open, data: bytes) -> None:
        call.received += data
        while len(call.received) >= _PREFIX.size:
            _, size = _PREFIX.unpack_from(call.received)
            end = _PREFIX.size + size
            if len(call.received) < end:
                return
            call.call.receive(bytes(call.received[_PREFIX.size : end]))
            del call.received[:end]

    # what goes out

    def _advance(self) -> bool:
        """Let each call send; return whether any did."""
        if len(self._out) > _BUFFERED:
            return False
        said = [self._say(stream_id, call) for stream_id, call in list(self._calls.items())]
        return any(said)

    def _say(self, stream_id: int, call: _Open) -> bool:
        room = self._http.local_flow_control_window(stream_id)
        frame = min(room, self._http.max_outbound_frame_size)
        self._fill(call, frame)
        if call.unsent and frame > 0:
            self._http.send_data(stream_id, bytes(call.unsent[:frame]))
            del call.unsent[:frame]
            return True
        if call.status is not None and not call.unsent:
            self._http.send_headers(stream_id, _status(*call.status), end_stream=True)
            del self._calls[stream_id]
            return True
        return False

    @staticmethod
    def _fill(call: _Open, size: int) -> None:
        if call.status is not None or len(call.unsent) >= size:
            return
        try:
            for message in call.messages:
                if message is None:
                    return
                call.unsent += _PREFIX.pack(0, len(message)) + message
                if len(call.unsent) >= size:
                    return
            call.status = (0, "")
        except GrpcError as error:
            call.status = (error.status, str(error))


def _status(status: int, message: str) -> list[tuple[str, str]]:
    return [("grpc-status", str(status)), *([("grpc-message", quote(message))] if message else [])]
