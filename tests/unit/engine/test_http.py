"""Plain questions over a Unix socket: answers of every framing, connections kept, and broken ones."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress

import pytest

from detbuild.engine.http import EngineClient, Response, UnixSocketClient
from detbuild.errors import EngineError

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\nOK"


class Peer:
    """Gives the answers in order, one for each request; `None` hangs up. Counts its callers."""

    def __init__(self, path: str, answers: list[bytes | None]) -> None:
        self.answers, self.asked, self.callers = answers, list[bytes](), 0
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        with suppress(OSError):
            while self.answers:
                caller, _ = self.server.accept()
                self.callers += 1
                with caller:
                    self.talk(caller)

    def talk(self, caller: socket.socket) -> None:
        while self.answers:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = caller.recv(1 << 16)
                if not piece:
                    return
                head += piece
            self.asked.append(head)
            answer = self.answers.pop(0)
            if answer is None:
                return
            caller.sendall(answer)
            if b"Content-Length" not in answer and b"chunked" not in answer and b" 204 " not in answer:
                return

    def stop(self) -> None:
        self.answers.clear()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


@pytest.fixture
def peer(tmp_path):
    made = []

    def make(*answers: bytes | None) -> tuple[UnixSocketClient, Peer]:
        path = str(tmp_path / "engine.sock")
        peer, api = Peer(path, [PING, *answers]), UnixSocketClient(path, deadline=2)
        made.extend([api.close, peer.stop])
        return api, peer

    yield make
    for end in made:
        end()


def ask(api: UnixSocketClient, method: str = "GET", path: str = "/x", body: object = None) -> Response:
    return api.call(method, path, params={}, body=body, timeout=None)


CHUNKS = b"2;a=b\r\n[1\r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
PLAIN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n[2]"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\n[3]"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


def test_every_framing_is_read_and_the_connection_is_kept(peer) -> None:
    api, there = peer(CHUNKED, EMPTY, PLAIN, UNTIL_THE_END)
    answers = [ask(api) for _ in range(4)]
    assert answers == [
        Response(201, b"[1]"),
        Response(204, b""),
        Response(404, b"[2]"),
        Response(200, b"[3]"),
    ]
    assert there.callers == 1


def test_a_question_carries_version_parameters_and_body(peer) -> None:
    api, there = peer(PLAIN)
    api.call("POST", "/images/a:1/é x", params={"q": "a b&c"}, body={"k": 1}, timeout=None)
    line, *_, body = there.asked[1].decode().split("\r\n")
    assert line == "POST /v1.51/images/a:1/%C3%A9%20x?q=a+b%26c HTTP/1.1"
    assert json.loads(body) == {"k": 1}
    assert b"Content-Type: application/json" in there.asked[1]


def test_a_connection_that_the_engine_closed_is_replaced(peer) -> None:
    closing = PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    api, there = peer(closing, UNTIL_THE_END, PLAIN)
    assert [ask(api).status for _ in range(3)] == [404, 200, 404]
    assert there.callers == 3


@pytest.mark.parametrize(
    "broken",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[1]",
        b"no http\r\n\r\n",
        b"HTTP/1.1 20",
    ],
)
def test_half_an_answer_is_an_error_and_the_next_question_gets_a_whole_one(peer, broken) -> None:
    api, there = peer(broken, PLAIN)
    assert api.version == "1.51"
    with pytest.raises((OSError, ValueError)):
        api.call("GET", "/x", params={}, body=None, timeout=0.2)
    assert ask(api) == Response(404, b"[2]")
    assert there.callers == 2


def test_the_wait_for_a_message_ends_when_what_is_watched_fails(daemon) -> None:
    """The session of a build falls silent when the engine hangs, long before a quiet step may be given up."""
    calls = EngineClient(daemon.url, deadline=2)
    daemon.answers["POST /build"] = (200, [{"first": 1}, "hang"])
    watched = Future()
    messages = calls.stream("/build", params={}, silence=600, watch=watched)
    assert next(messages) == {"first": 1}
    timer = threading.Timer(0.05, watched.set_exception, [TimeoutError()])
    timer.start()
    with pytest.raises(EngineError):
        next(messages)
    timer.join()
    calls.close()


def test_docker_py_is_not_imported_for_a_local_engine() -> None:
    """Its import takes as long as creating a container."""
    code = "import sys, detbuild.engine.docker; sys.exit('docker' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
