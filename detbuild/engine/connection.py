"""The connection to Docker Engine through docker-py, with calls that docker-py does not offer."""

# ruff: noqa: SLF001, ANN401  (docker-py has no public API for these calls)
from __future__ import annotations

import json
import threading
from base64 import b64decode
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import docker
import docker.auth
import docker.utils
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from urllib3.exceptions import HTTPError

from detbuild.engine.plain import Response, UpgradeRefusedError, interrupt, upgraded
from detbuild.engine.refusals import engine_error, unreachable

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from detbuild.engine.address import Address


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
                    watch.add_done_callback(lambda done: interrupt(sock) if done.exception() else None)
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
            return sock, upgraded(sock, urlsplit(url).path, (*headers, *of_proxies.items()))

    def credentials(self, registry: str) -> dict[str, str]:
        """Look up credentials in the caller's docker config and its helpers; keys are in lower case."""
        with self.api() as api:
            found = docker.auth.resolve_authconfig(api._auth_configs, registry)
        return {key.lower(): value for key, value in (found or {}).items()}

    def registry_auth(self, repository: str, own: Mapping[str, str]) -> dict[str, str]:
        """Return the header with the credentials for a pull.

        Args:
            repository: The repository to pull from.
            own: Used if they are for its registry; otherwise those of the caller's docker config are.
        """
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
        settings = docker.utils.kwargs_from_env()
        if self._host is not None:
            settings["base_url"] = self._host
        elif "base_url" not in settings:
            settings |= ContextAPI.kwargs_from_context()
        return _Client(version="auto", timeout=self.deadline, **settings)


def _spelled_out(credentials: Mapping[str, str]) -> dict[str, str]:
    """Decode `auth` of docker's config file (base64 of `name:password`), which the engine does not read."""
    name, _, password = b64decode(credentials.get("auth", "")).decode(errors="replace").partition(":")
    named = {"username": name, "password": password} if name else {}
    return {**named, **credentials}


class _Client(docker.APIClient):
    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Keep REQUESTS_CA_BUNDLE, which is meant for the web, from replacing the engine's own CA."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _connect(api: Any, url: str) -> Any:
    """Open a connection as docker-py does (Unix socket, TCP or TLS), outside of its pool."""
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
