# ruff: noqa: SLF001, ANN401  (docker-py has no public API for these calls)
"""HTTP calls to Docker Engine: over its local Unix socket if it has one, else through docker-py.

Importing docker-py takes as long as creating a container, and most commands send only one or two requests. So
the local socket has a client of its own, and docker-py is imported on its first use: for TCP, TLS and ssh,
for requests with a stream as body, and for the user's registry credentials.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from base64 import b64decode
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from detbuild.engine.address import address_of, unix_socket_path
from detbuild.engine.errors import engine_error, unreachable

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from io import BufferedReader

    from detbuild.engine.address import Address

_OK = 200
_WITHOUT_BODY = frozenset({204, 304})
_ERRORS = 400  # the lowest status that is an error


class UpgradeRefusedError(Exception):
    """The engine, or a proxy in front of it, does not upgrade connections."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    def json(self) -> Any:
        """Raise ValueError when it is not JSON."""
        return json.loads(self.body)


class EngineClient:
    """A client of one Docker Engine that connects on the first call.

    `deadline` is the timeout of each response, in seconds.
    """

    def __init__(self, host: str | None, *, deadline: int) -> None:
        self._host, self._deadline = host, deadline

    @cached_property
    def address(self) -> Address:
        """The engine's address.

        Raises:
            EngineError: The configured docker context does not exist.
        """
        return address_of(self._host, os.environ)

    @cached_property
    def _socket_client(self) -> UnixSocketClient | None:
        path = unix_socket_path(self.address, os.environ)
        return UnixSocketClient(path, deadline=self._deadline) if path else None

    @cached_property
    def connection(self) -> Connection:
        """docker-py's connection, for streams and for calls that need the user's docker config."""
        return Connection(self._host, self.address, deadline=self._deadline)

    @property
    def api_version(self) -> str:
        if self._socket_client is None:
            return self.connection.api_version
        try:
            return self._socket_client.version
        except (OSError, ValueError) as error:
            raise unreachable(self.address, error) from error

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        accept: Collection[int] = (),
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return the response.

        Args:
            accept: Error statuses that are returned instead of raised.
            timeout: Replaces the deadline, in seconds.

        Raises:
            EngineError: The engine returned an error, cannot be reached, or timed out.
        """
        answer = self._answer(method, path, params=params or {}, body=body, timeout=timeout)
        if answer.status >= _ERRORS and answer.status not in accept:
            raise engine_error(_words(answer))
        return answer

    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, str],
        silence: float,
        watch: Future[None] | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """Post and yield the messages of the response, as `Connection.stream` does."""
        if self._socket_client is None:
            yield from self.connection.stream(path, params=params, silence=silence, watch=watch)
            return
        try:
            with self._socket_client.lines(path, params=params, silence=silence, watch=watch) as (
                status,
                lines,
            ):
                if status >= _ERRORS:
                    raise engine_error(_words(Response(status, b"\n".join(lines))))
                yield from (json.loads(line) for line in lines if line.strip())
        except (OSError, ValueError) as error:
            raise unreachable(self.address, error) from error

    def upgrade(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[socket.socket, bytes]:
        """Return a raw upgraded connection and the bytes that arrived after the response header.

        Raises:
            UpgradeRefusedError: The engine did not switch protocols.
        """
        if self._socket_client is None:
            return self.connection.upgrade(path, headers)
        try:
            return self._socket_client.upgrade(path, headers)
        except OSError as error:
            raise unreachable(self.address, error) from error

    def close(self) -> None:
        if "_socket_client" in self.__dict__ and self._socket_client is not None:
            self._socket_client.close()
        if "connection" in self.__dict__:
            self.connection.close()

    def _answer(
        self, method: str, path: str, *, params: Mapping[str, str], body: object, timeout: float | None
    ) -> Response:
        if self._socket_client is None:
            return self.connection.call(method, path, params=params, body=body, timeout=timeout)
        try:
            return self._socket_client.call(method, path, params=params, body=body, timeout=timeout)
        except (OSError, ValueError) as error:
            raise unreachable(self.address, error) from error


def _words(answer: Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.body.decode("utf-8", "replace").strip() or f"status {answer.status}"


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
        where = self._prefix + _target(path, params)
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
        where = self._prefix + _target(path, params)
        wire = _HttpConnection(self._path, self._deadline if watch else silence)
        try:
            status, headers = wire.send("POST", where, b"")
            wire.socket.settimeout(silence)
            if watch is not None:
                watch.add_done_callback(lambda done: _interrupt(wire.socket) if done.exception() else None)
            yield status, _lines(wire.pieces(status, headers))
        finally:
            wire.close()

    def upgrade(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[socket.socket, bytes]:
        """Return a raw upgraded connection and the bytes that arrived after the response header."""
        where = self._prefix + path
        sock = _connected(self._path, self._deadline)
        try:
            early = _upgraded(sock, where, headers)
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


class Connection:
    """A docker-py client that connects on the first call.

    `host` is a URL as in DOCKER_HOST; None uses the environment and docker's current context, as the docker
    CLI does. `address` is for messages. `deadline` is the timeout of each response, in seconds.
    """

    def __init__(self, host: str | None, address: Address, *, deadline: int) -> None:
        self._host, self._address, self.deadline = host, address, deadline
        self._client: Any = None
        self._lock = threading.Lock()

    @contextmanager
    def api(self) -> Iterator[Any]:
        """Give docker-py's low-level client; translate its exceptions in the block to EngineError."""
        import requests
        from docker.errors import APIError, DockerException
        from urllib3.exceptions import HTTPError

        try:
            yield self._connected()
        except APIError as error:
            raise engine_error(error.explanation or str(error)) from error
        except (DockerException, requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise unreachable(self._address, error) from error

    @property
    def api_version(self) -> str:
        with self.api() as api:
            version: str = api.api_version
        return version

    def call(
        self, method: str, path: str, *, params: Mapping[str, str], body: object, timeout: float | None
    ) -> Response:
        """Send a request and return the response, whatever its status."""
        with self.api() as api:
            ways = {"GET": api._get, "POST": api._post, "DELETE": api._delete}
            answer = ways[method](
                api._url("{0}", path),
                params=dict(params),
                json=body,
                timeout=self.deadline if timeout is None else timeout,
            )
        return Response(answer.status_code, answer.content)

    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, str | Sequence[str]],
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float,
        watch: Future[None] | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """Post and yield the messages of the response; `silence` is the timeout of each, in seconds.

        The connection is closed when the caller stops reading, which cancels a build. A failure of `watch`
        ends the wait too.
        """
        with self.api() as api:
            answer = api._post(
                api._url(path),
                params=dict(params),
                data=body,
                headers=dict(headers or {}),
                stream=True,
                timeout=(self.deadline, self.deadline if watch else silence),
            )
            with closing(answer):
                if watch is not None:
                    sock = _socket_of(answer)
                    sock.settimeout(silence)
                    watch.add_done_callback(lambda done: _interrupt(sock) if done.exception() else None)
                api._raise_for_status(answer)
                yield from map(json.loads, filter(None, answer.iter_lines(None)))

    def upgrade(self, path: str, headers: Iterable[tuple[str, str]]) -> tuple[socket.socket, bytes]:
        """Return a raw upgraded connection and the bytes that arrived after the response header.

        Raises:
            UpgradeRefusedError: The engine did not switch protocols.
        """
        with self.api() as api:
            url: str = api._url(path)
            if "://ssh" in url:
                raise UpgradeRefusedError("a connection over ssh cannot be upgraded")
            of_proxies = api._general_configs.get("HttpHeaders", {})
            sock = _connect(api, url)
            return sock, _upgraded(sock, urlsplit(url).path, (*headers, *of_proxies.items()))

    def credentials(self, registry: str) -> dict[str, str]:
        """Look up credentials in the caller's docker config and its helpers; keys are in lower case."""
        import docker.auth

        with self.api() as api:
            found = docker.auth.resolve_authconfig(api._auth_configs, registry)
        return {key.lower(): value for key, value in (found or {}).items()}

    def registry_auth(self, repository: str, own: Mapping[str, str]) -> dict[str, str]:
        """Return the header with the credentials for a pull.

        Args:
            repository: The repository to pull from.
            own: Used if they are for its registry; otherwise those of the caller's docker config are.
        """
        import docker.auth

        registry, _ = docker.auth.resolve_repository_name(repository)
        if own and docker.auth.resolve_index_name(own.get("serveraddress", registry)) == registry:
            return {"X-Registry-Auth": docker.auth.encode_header(_spelled_out(own)).decode()}
        with self.api() as api:
            header: bytes | None = docker.auth.get_config_header(api, registry)
        return {"X-Registry-Auth": header.decode()} if header else {}

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        import docker.utils
        from docker.context import ContextAPI

        settings = docker.utils.kwargs_from_env()
        if self._host is not None:
            settings["base_url"] = self._host
        elif "base_url" not in settings:
            settings |= ContextAPI.kwargs_from_context()
        return _docker_py_client(version="auto", timeout=self.deadline, **settings)


def _spelled_out(credentials: Mapping[str, str]) -> dict[str, str]:
    """Decode `auth` of docker's config file (base64 of `name:password`), which the engine does not read."""
    name, _, password = b64decode(credentials.get("auth", "")).decode(errors="replace").partition(":")
    named = {"username": name, "password": password} if name else {}
    return {**named, **credentials}


def _docker_py_client(**settings: Any) -> Any:
    import docker

    class Client(docker.APIClient):
        def merge_environment_settings(
            self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
        ) -> Any:
            """Keep REQUESTS_CA_BUNDLE, which is meant for the web, from replacing the engine's own CA."""
            verify = self.verify if verify is None else verify
            return super().merge_environment_settings(url, proxies, stream, verify, cert)

    return Client(**settings)


def _connect(api: Any, url: str) -> Any:
    """Open a connection as docker-py does (Unix socket, TCP or TLS), outside of its pool."""
    import requests

    request = requests.Request("POST", url).prepare()
    pool = api.get_adapter(url).get_connection_with_tls_context(request, verify=api.verify, cert=api.cert)
    connection = pool._new_conn()
    connection.connect()
    return connection.sock


def _socket_of(answer: Any) -> socket.socket:
    """Find the socket where docker-py does."""
    raw = answer.raw._fp.fp.raw
    sock: socket.socket = getattr(raw, "_sock", raw)
    return sock


def _target(path: str, params: Mapping[str, str]) -> str:
    """Encode a request target; image references keep their slashes and colons."""
    query = f"?{urlencode(params)}" if params else ""
    return quote(path, safe="/:") + query


def _upgraded(sock: socket.socket, path: str, headers: Iterable[tuple[str, str]]) -> bytes:
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


def _interrupt(sock: socket.socket) -> None:
    """Wake a thread that blocks in `recv`; closing the socket would not."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
