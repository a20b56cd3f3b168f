"""Session services for BuildKit other than files: health, build secrets, registry credentials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from detbuild.engine.buildkit import wire
from detbuild.engine.buildkit.grpc import NOT_FOUND, GrpcError, Handler, Unary

_SERVING = 1
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"  # its name in docker's config file


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for one registry; an identity token has no user name."""

    username: str
    secret: str


FindCredentials = Callable[[str], Credentials | None]


def handlers(secrets: Mapping[str, bytes], find: FindCredentials) -> dict[str, Handler]:
    """Return the unary methods of the session by path.

    Without the other methods of Auth, BuildKit fetches its tokens itself.
    """
    return {
        "/grpc.health.v1.Health/Check": lambda _: Unary(lambda _: wire.integer(1, _SERVING)),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": lambda _: Unary(lambda ask: _secret(secrets, ask)),
        "/moby.filesync.v1.Auth/Credentials": lambda _: Unary(lambda ask: _credentials(find, ask)),
    }


def _secret(secrets: Mapping[str, bytes], request: bytes) -> bytes:
    name = wire.text(wire.fields(request), 1)
    if name not in secrets:
        raise GrpcError(NOT_FOUND, f"secret {name}: not found")
    return wire.blob(1, secrets[name])


def _credentials(find: FindCredentials, request: bytes) -> bytes:
    host = wire.text(wire.fields(request), 1)
    found = find(_DOCKER_HUB_KEY if host == _DOCKER_HUB else host) or Credentials("", "")
    return wire.blob(1, found.username.encode()) + wire.blob(2, found.secret.encode())
