"""Resolves the address of Docker Engine as the docker CLI does, with the setting that it came from."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT: Final = "unix:///var/run/docker.sock"
_DEFAULT_CONTEXT: Final = "default"
_PASSWORD: Final = re.compile(r"//[^/@]*:[^/@]*@")


@dataclass(frozen=True, slots=True)
class Address:
    """The engine's URL, as in DOCKER_HOST, and the setting that it came from."""

    url: str
    source: str

    def __str__(self) -> str:
        return f"{_PASSWORD.sub(r'//***@', self.url)} ({self.source})"

    @property
    def socket(self) -> str:
        """Path of a local Unix socket; "" for any other kind of address."""
        path = self.url.removeprefix("unix://")
        return path if path.startswith("/") and path != self.url else ""


def address_of(host: str | None, environ: Mapping[str, str]) -> Address:
    """Resolve the address as the docker CLI does: DOCKER_HOST first, then the current docker context.

    Raises:
        EngineError: The configured docker context does not exist.
    """
    if host:
        return Address(host, "as given")
    if environ.get("DOCKER_HOST"):
        return Address(environ["DOCKER_HOST"], "from DOCKER_HOST")
    name, source = _context(environ)
    if name == _DEFAULT_CONTEXT:
        return Address(_DEFAULT, "the default")
    meta = (
        _docker_dir(environ) / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    )
    try:
        url = json.loads(meta.read_bytes())["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"docker context `{name}`, set by {source}, cannot be read: {meta}",
            hint="run `docker context ls`, then `docker context use NAME`, or set DOCKER_HOST",
        ) from error
    return Address(str(url), f"docker context `{name}`, set by {source}")


def unix_socket_path(address: Address, environ: Mapping[str, str]) -> str:
    """Return the path of the local socket, or "" if the connection needs docker-py."""
    return "" if _docker_settings(environ).get("HttpHeaders") else address.socket


def _docker_settings(environ: Mapping[str, str]) -> Mapping[str, object]:
    """Read the user's docker config file; return an empty map if there is none."""
    try:
        found = json.loads((_docker_dir(environ) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _context(environ: Mapping[str, str]) -> tuple[str, str]:
    if environ.get("DOCKER_CONTEXT"):
        return environ["DOCKER_CONTEXT"], "DOCKER_CONTEXT"
    current = _docker_settings(environ).get("currentContext")
    return (str(current) if current else _DEFAULT_CONTEXT), str(_docker_dir(environ) / "config.json")


def _docker_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/", ".docker"))
