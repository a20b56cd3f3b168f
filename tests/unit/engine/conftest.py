"""An engine that answers as each test says, over TCP and over a Unix socket."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detbuild.engine.docker import DockerEngine

VERSION = {"ApiVersion": "1.51"}


class Daemon(ThreadingHTTPServer):
    """Answers each request by what `answers` says for "METHOD /path" (without the API's version)."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int] | str = ("127.0.0.1", 0)) -> None:
        super().__init__(address, Handler)
        self.answers = {"GET /version": (200, VERSION), "GET /_ping": (200, "OK"), "GET /info": (200, {})}
        self.asked: list[str] = []  # with parameters
        self.bodies: dict[str, bytes] = {}
        self.credentials: object = None  # of the last pull
        self.hang = threading.Event()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_port}"


class LocalDaemon(Daemon):
    """The same behind a Unix socket, where docker-py is not needed for plain questions."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)

    @property
    def url(self) -> str:
        return f"unix://{self.server_address}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Daemon

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        asked = f"{self.command} {path.removeprefix('/v1.51')}"
        self.server.bodies[asked] = self.body()
        self.server.asked.append(f"{self.command} {self.path.removeprefix('/v1.51')}")
        if header := self.headers.get("X-Registry-Auth"):
            self.server.credentials = json.loads(base64.urlsafe_b64decode(header))
        status, content = self.server.answers.get(asked, (404, {"message": f"no {asked}"}))
        lines = content if isinstance(content, list) else [content]
        with suppress(OSError):  # the client gave up
            if content != "hang":
                self.send_response(status)
                self.send_header("Api-Version", VERSION["ApiVersion"])
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
            for line in lines:
                self.say(json.dumps(line).encode() + b"\r\n" if line != "hang" else None)
            self.wfile.write(b"0\r\n\r\n")

    def say(self, line: bytes | None) -> None:
        if line is None:
            self.server.hang.wait(30)
        else:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    do_GET = do_POST = do_DELETE = answer  # noqa: N815

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *_) -> None:
        return


@pytest.fixture(params=["tcp", "unix"])
def daemon(request, tmp_path):
    with Daemon() if request.param == "tcp" else LocalDaemon(str(tmp_path / "docker.sock")) as daemon:
        thread = threading.Thread(target=daemon.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield daemon
        daemon.hang.set()
        daemon.shutdown()
        thread.join()


@pytest.fixture
def engine(daemon: Daemon):
    engine = DockerEngine(daemon.url, deadline=2)
    yield engine
    engine.close()
