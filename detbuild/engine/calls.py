"""HTTP calls to Docker Engine: over its local Unix socket if it has one, else through docker-py."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from detbuild.engine.address import address_of, unix_socket_path
from detbuild.engine.plain import Response, UnixSocketClient
from detbuild.engine.refusals import engine_error, unreachable

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Generator, Iterable, Mapping
    from concurrent.futures import Future

    from detbuild.engine.address import Address
    from detbuild.engine.connection import Connection

_ERRORS = 400  # the lowest status that is an error


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
    def _plain(self) -> UnixSocketClient | None:
        path = unix_socket_path(self.address, os.environ)
        return UnixSocketClient(path, deadline=self._deadline) if path else None

    @cached_property
    def connection(self) -> Connection:
        """docker-py's connection, for streams and for calls that need the user's docker config."""
        from detbuild.engine.connection import Connection

        return Connection(self._host, self.address, deadline=self._deadline)

    @property
    def api_version(self) -> str:
        if self._plain is None:
            return self.connection.api_version
        try:
            return self._plain.version
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
        if self._plain is None:
            yield from self.connection.stream(path, params=params, silence=silence, watch=watch)
            return
        try:
            with self._plain.lines(path, params=params, silence=silence, watch=watch) as (status, lines):
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
        if self._plain is None:
            return self.connection.upgrade(path, headers)
        try:
            return self._plain.upgrade(path, headers)
        except OSError as error:
            raise unreachable(self.address, error) from error

    def close(self) -> None:
        if "_plain" in self.__dict__ and self._plain is not None:
            self._plain.close()
        if "connection" in self.__dict__:
            self.connection.close()

    def _answer(
        self, method: str, path: str, *, params: Mapping[str, str], body: object, timeout: float | None
    ) -> Response:
        if self._plain is None:
            return self.connection.call(method, path, params=params, body=body, timeout=timeout)
        try:
            return self._plain.call(method, path, params=params, body=body, timeout=timeout)
        except (OSError, ValueError) as error:
            raise unreachable(self.address, error) from error


def _words(answer: Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.body.decode("utf-8", "replace").strip() or f"status {answer.status}"
