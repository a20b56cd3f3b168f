"""The server against a real HTTP/2 client in the same process, over a socket pair."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)

from detbuild.engine.buildkit.grpc import NOT_FOUND, GrpcError, GrpcServer, Unary


@dataclass
class Answer:
    """What the client got for one call."""

    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.data):
            _, size = struct.unpack_from(">BI", self.data, at)
            found.append(self.data[at + 5 : at + 5 + size])
            at += 5 + size
        return found


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(10)
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.answers: dict[int, Answer] = {}

    def call(self, path: str, *messages: bytes, metadata=(), end: bool = True) -> Answer:
        stream = self.http.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self.http.send_headers(stream, [*head, ("content-type", "application/grpc"), *metadata])
        for message in messages:
            self.http.send_data(stream, struct.pack(">BI", 0, len(message)) + message)
        if end:
            self.http.end_stream(stream)
        answer = self.answers[stream] = Answer()
        return answer

    def read_until_all_ended(self) -> None:
        while not all(answer.ended for answer in self.answers.values()):
            self.sock.sendall(self.http.data_to_send())
            for event in self.http.receive_data(self.sock.recv(1 << 16)):
                self.handle(event)
        self.sock.sendall(self.http.data_to_send())

    def handle(self, event) -> None:
        if isinstance(event, DataReceived):
            self.answers[event.stream_id].data += event.data
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, ResponseReceived | TrailersReceived):
            self.answers[event.stream_id].headers |= dict(event.headers)
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].ended = True


class Echo:
    """Answers each message with itself and ends after `last`."""

    def __init__(self, metadata) -> None:
        self.metadata, self.waiting, self.last = metadata, [], b"last"

    def receive(self, message: bytes) -> None:
        self.waiting.append(message)

    def messages(self):
        said = b""
        while said != self.last:
            if not self.waiting:
                yield None
                continue
            said = self.waiting.pop(0)
            yield said


def refuse(_: bytes) -> bytes:
    raise GrpcError(NOT_FOUND, "é: not found")


HANDLERS = {
    "/echo": Echo,
    "/upper": lambda _: Unary(bytes.upper),
    "/refuse": lambda _: Unary(refuse),
    "/large": lambda _: Unary(lambda request: b"x" * int(request)),
    "/metadata": lambda metadata: Unary(lambda _: repr(metadata["followpaths"]).encode()),
}


@pytest.fixture
def client():
    ours, theirs = socket.socketpair()
    server = GrpcServer(theirs, HANDLERS)
    with ThreadPoolExecutor(1) as thread, ours:
        served = thread.submit(server.serve)
        yield Client(ours)
        server.close()
        assert served.result(10) is None


def test_a_request_gets_its_reply_and_status_0(client) -> None:
    answer = client.call("/upper", b"abc")
    client.read_until_all_ended()
    assert (answer.messages, answer.headers["grpc-status"]) == ([b"ABC"], "0")
    assert answer.headers["content-type"] == "application/grpc"


def test_calls_run_side_by_side(client) -> None:
    waiting = client.call("/echo", b"one", end=False)
    quick = client.call("/upper", b"abc")
    while not quick.ended:
        client.sock.sendall(client.http.data_to_send())
        for event in client.http.receive_data(client.sock.recv(1 << 16)):
            client.handle(event)
    assert (quick.messages, waiting.messages, waiting.ended) == ([b"ABC"], [b"one"], False)
    client.http.send_data(1, struct.pack(">BI", 0, 4) + b"last", end_stream=True)
    client.read_until_all_ended()
    assert waiting.messages == [b"one", b"last"]


def test_an_answer_larger_than_every_window_arrives_whole(client) -> None:
    answer = client.call("/large", str(3 << 20).encode())
    client.read_until_all_ended()
    assert [len(message) for message in answer.messages] == [3 << 20]


def test_a_message_may_come_in_pieces(client) -> None:
    answer = client.call("/upper", end=False)
    for byte in struct.pack(">BI", 0, 3) + b"abc":
        client.http.send_data(1, bytes([byte]))
        client.sock.sendall(client.http.data_to_send())
    client.read_until_all_ended()
    assert answer.messages == [b"ABC"]


def test_a_refusal_carries_status_and_message(client) -> None:
    answer = client.call("/refuse", b"x")
    client.read_until_all_ended()
    assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == ("5", "%C3%A9%3A%20not%20found")


def test_a_method_that_is_not_there_is_unimplemented(client) -> None:
    answer = client.call("/none", b"x")
    client.read_until_all_ended()
    assert answer.headers["grpc-status"] == "12"


def test_metadata_keeps_repeated_values_in_order(client) -> None:
    answer = client.call("/metadata", b"x", metadata=[("followpaths", "a"), ("followpaths", "b")])
    client.read_until_all_ended()
    assert answer.messages == [b"('a', 'b')"]


def test_a_call_that_the_peer_gives_up_does_no_harm(client) -> None:
    client.call("/echo", b"one", end=False)
    client.http.reset_stream(1)
    del client.answers[1]
    answer = client.call("/upper", b"abc")
    client.read_until_all_ended()
    assert answer.messages == [b"ABC"]


def test_the_server_ends_when_the_peer_hangs_up() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    assert GrpcServer(theirs, HANDLERS).serve() is None


def test_the_server_ends_when_the_peer_talks_nonsense() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert GrpcServer(theirs, HANDLERS).serve() is None


def test_what_came_with_the_upgrade_is_not_lost() -> None:
    ours, theirs = socket.socketpair()
    with ours, ThreadPoolExecutor(1) as thread:
        client = Client(ours)
        answer = client.call("/upper", b"abc")
        server = GrpcServer(theirs, HANDLERS, early=client.http.data_to_send())
        served = thread.submit(server.serve)
        client.read_until_all_ended()
        server.close()
        served.result(10)
    assert answer.messages == [b"ABC"]


def test_a_peer_that_falls_silent_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(TimeoutError, match="nothing heard"):
        GrpcServer(theirs, HANDLERS, silence=0.05).serve()
