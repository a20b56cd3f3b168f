"""Plain questions over a Unix socket: answers of every framing, connections kept, and broken ones."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from detbuild.engine.address import Address, address_of, unix_socket_path
from detbuild.engine.http import Response, UnixSocketClient
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


DEFAULT = "/var/run/docker.sock"
REMOTE = "ssh://far"
TLS = "tcp://host:2376"


@pytest.mark.parametrize(
    ("host", "environ", "settings", "path"),
    [
        (None, {}, {}, DEFAULT),
        (None, {}, {"auths": {}, "currentContext": "default"}, DEFAULT),
        (None, {"DOCKER_HOST": "unix:///run/mine.sock"}, {}, "/run/mine.sock"),
        ("unix:///a", {"DOCKER_HOST": "unix:///b"}, {}, "/a"),
        (None, {"DOCKER_HOST": TLS}, {}, ""),
        (TLS, {"DOCKER_HOST": "unix:///b"}, {}, ""),
        (None, {"DOCKER_HOST": "ssh://host"}, {}, ""),
        (None, {}, {"currentContext": "remote"}, ""),
        (None, {"DOCKER_CONTEXT": "remote"}, {}, ""),
        (None, {"DOCKER_CONTEXT": "default"}, {"currentContext": "remote"}, DEFAULT),
        (None, {"DOCKER_HOST": "unix:///a"}, {"currentContext": "remote"}, "/a"),
        (None, {}, {"HttpHeaders": {"X-Proxy": "1"}}, ""),
    ],
)
def test_the_way_is_the_one_that_the_docker_command_takes(tmp_path, host, environ, settings, path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    context(tmp_path, "remote", REMOTE)
    environ = {"DOCKER_CONFIG": str(tmp_path), **environ}
    assert unix_socket_path(address_of(host, environ), environ) == path


def context(folder: Path, name: str, url: str) -> None:
    """As `docker context create` stores one."""
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))


def test_the_address_says_where_it_comes_from(tmp_path: Path) -> None:
    context(tmp_path, "far", REMOTE)
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert str(address_of(None, environ)) == f"unix://{DEFAULT} (the default)"
    assert str(address_of(None, {**environ, "DOCKER_HOST": TLS})) == f"{TLS} (from DOCKER_HOST)"
    assert str(address_of(TLS, environ)) == f"{TLS} (as given)"
    assert str(address_of(None, {**environ, "DOCKER_CONTEXT": "far"})) == (
        f"{REMOTE} (docker context `far`, set by DOCKER_CONTEXT)"
    )
    secret = {**environ, "DOCKER_HOST": "ssh://me:hunter2@far"}
    assert str(address_of(None, secret)) == "ssh://***@far (from DOCKER_HOST)"
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert str(address_of(None, environ)) == (
        f"{REMOTE} (docker context `far`, set by {tmp_path}/config.json)"
    )
    assert address_of(None, environ) == Address(
        REMOTE, f"docker context `far`, set by {tmp_path}/config.json"
    )


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"Endpoints": {"docker": null}}'])
def test_a_context_that_does_not_exist_is_no_reason_to_use_another_engine(tmp_path, content) -> None:
    context(tmp_path, "far", REMOTE)
    (meta,) = tmp_path.rglob("meta.json")
    meta.unlink() if content is None else meta.write_text(content)
    with pytest.raises(EngineError, match="docker context `far`, set by DOCKER_CONTEXT, cannot be read"):
        address_of(None, {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "far"})


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_a_config_file_that_is_missing_or_damaged_says_nothing(tmp_path, content) -> None:
    folder = tmp_path / ".docker"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert address_of(None, {"HOME": str(tmp_path)}).socket == DEFAULT
