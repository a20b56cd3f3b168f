"""Builds over TCP and TLS, and against a registry that wants credentials."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detbuild.engine.docker import DockerEngine
from detbuild.errors import BuildError, EngineError
from detbuild.events import ContextSent
from tests.contracts import tiny_plan

pytestmark = pytest.mark.engine

SOCKET = "/var/run/docker.sock"


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarded(context: ssl.SSLContext | None = None):
    """A TCP port that leads to the engine's socket, through TLS if a context is given."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as engine, secured(client) as outside:
            engine.connect(SOCKET)
            back = threading.Thread(target=pump, args=(engine, outside), daemon=True)
            back.start()
            pump(outside, engine)
            back.join()

    def secured(client: socket.socket) -> socket.socket:
        return context.wrap_socket(client, server_side=True) if context else client

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def build_twice(host: str | None, tag: str) -> None:
    """A context that is larger than every buffer, then one changed file of it."""
    engine = DockerEngine(host)
    files = {"large": uuid.uuid4().hex * (1 << 16), "small": uuid.uuid4().hex}
    try:
        for changed in (2, 1, 0):
            events = []
            engine.build(tiny_plan(tag, **files), events.append)
            assert [event.files for event in events if isinstance(event, ContextSent)] == [changed]
            if changed == 2:
                files["small"] = uuid.uuid4().hex
        engine.remove_image(tag)
    finally:
        engine.close()


def test_a_session_works_over_tcp(engine, tag) -> None:
    with forwarded() as host:
        build_twice(host, tag)


def test_a_session_works_over_tls(engine, tag, tmp_path, monkeypatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate and is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *request, *names], check=True, capture_output=True)
    shutil.copy(certificate, tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with forwarded(context) as host:
        build_twice(host, tag)


class Registry(ThreadingHTTPServer):
    """Refuses everybody without the right name and password, and has nothing for those who have them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.seen: set[str] = set()


class RegistryHandler(BaseHTTPRequestHandler):
    server: Registry
    default_request_version = "HTTP/1.0"  # so that one who tries TLS first sees that this is plain HTTP

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.server.seen.add(given)
        self.send_response(404 if given else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_) -> None:
        return


@pytest.fixture
def registry(tmp_path, monkeypatch):
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        auth = base64.b64encode(b"user:pass").decode()
        config = {"auths": {f"localhost:{registry.server_port}": {"auth": auth}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        yield registry
        registry.shutdown()
        thread.join()


def test_credentials_of_the_docker_config_reach_the_registry_in_a_build(registry, tag) -> None:
    engine = DockerEngine()
    base = f"localhost:{registry.server_port}/x:1"
    plan = replace(tiny_plan(tag), base_image=base, dockerfile=f"FROM {base}\n")
    with pytest.raises(BuildError, match=f"base image {base} is not available"):
        engine.build(plan, lambda _: None)
    engine.close()
    assert "Basic " + base64.b64encode(b"user:pass").decode() in registry.seen


def test_credentials_of_the_docker_config_reach_the_registry_in_a_pull(registry) -> None:
    engine = DockerEngine()
    with pytest.raises(EngineError):
        engine.pull(f"localhost:{registry.server_port}/x:1", lambda _: None)
    engine.close()
    assert "Basic " + base64.b64encode(b"user:pass").decode() in registry.seen
