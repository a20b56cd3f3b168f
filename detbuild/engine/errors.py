"""Translates error messages of Docker Engine into a cause and a hint."""

from __future__ import annotations

import grp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from detbuild.errors import DiskFullError, EngineError

if TYPE_CHECKING:
    from detbuild.engine.address import Address

_LONGEST: Final = 200  # characters of an error of another library
DISK_FULL: Final = (
    "Docker Engine's disk is full",
    "free space: `docker system df` shows what uses it, `docker builder prune` removes old build steps",
)
NO_ANSWER_HINT: Final = "check that `docker info` answers; a stalled disk can cause this"
_START_IT: Final = "start it, or set DOCKER_HOST to where it runs; `detbuild doctor` checks the host"


@dataclass(frozen=True, slots=True)
class _KnownError:
    """`cause` may use the groups of the pattern."""

    pattern: str
    cause: str
    hint: str
    error: type[EngineError] = EngineError


_KNOWN_ERRORS: Final = (
    _KnownError(
        r'could not select device driver "?(?P<driver>[\w.-]*)"?',
        "Docker Engine cannot pass GPUs to containers: it has no GPU device driver",
        "install the NVIDIA container toolkit and run `nvidia-ctk runtime configure`, "
        "or generate a CDI specification with `nvidia-ctk cdi generate`; then restart the engine",
    ),
    _KnownError(
        r"unresolvable CDI devices (?P<names>[^:\n]+)",
        "unknown CDI device: {names}",
        "run `detbuild doctor` to list CDI devices; "
        "generate a specification with `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
    ),
    _KnownError(
        r"(CDI device injection|cdi).*(not enabled|disabled)",
        "CDI is disabled in Docker Engine",
        'set "features": {"cdi": true} in the engine\'s daemon.json and restart it',
    ),
    _KnownError(
        r"nvidia-container-cli: (?P<words>.*)",
        "the NVIDIA container runtime failed: {words}",
        "run `nvidia-smi` on the host to check the driver and the GPU",
    ),
    _KnownError(
        r"bind source path does not exist: (?P<path>.*)",
        "bind mount source not found on the engine's host: {path}",
        "create it, or fix bind_mounts in the experiment config",
    ),
    _KnownError(
        r"error gathering device information while adding custom device \"(?P<path>[^\"]*)\"",
        "device not found on the engine's host: {path}",
        "fix resources.devices in the experiment config",
    ),
    _KnownError(
        r"exec: \"(?P<program>[^\"]*)\": .*(not found|no such file)",
        "program not found in the image: {program}",
        "use a base image that contains it",
    ),
    _KnownError(
        r"[Nn]o such image: (?P<image>.*)",
        "image not found: {image}",
        "submit again to rebuild it",
    ),
    _KnownError(
        r"no space left on device",
        *DISK_FULL,
        DiskFullError,
    ),
    _KnownError(
        r"(pull access denied for|repository) (?P<image>[^ ,]+).*(does not exist|may require|not found)",
        "image {image} does not exist in the registry, or you have no access to it",
        "check the name; run `docker login` if it is private",
    ),
    _KnownError(
        r"manifest for (?P<image>\S+) not found"
        r"|failed to resolve reference \"(?P<other>[^\"]+)\".*: not found",
        "image not found in the registry: {image}{other}",
        "check its name and tag",
    ),
    _KnownError(
        r"(unauthorized|authentication required|no basic auth credentials).*",
        "the registry requires credentials: {0}",
        "run `docker login`",
    ),
    _KnownError(
        r"(no such host|server misbehaving|connection refused|i/o timeout|network is unreachable"
        r"|Client\.Timeout exceeded|TLS handshake timeout).*",
        "Docker Engine cannot reach the registry: {0}",
        "check the network, or set a proxy for the engine",
    ),
    _KnownError(
        r"invalid reference format.*",
        "not a valid image reference: {0}",
        "use [registry/]name[:tag] in lower case, or an id",
    ),
    _KnownError(
        r"port is already allocated|address already in use",
        "a port of the container is already in use on the host",
        "stop the process that uses it, or choose another port",
    ),
)


def engine_error(words: str) -> EngineError:
    """Return the error with a cause and a hint if the engine's message is a known one."""
    for known in _KNOWN_ERRORS:
        match = re.search(known.pattern, words)
        if match:
            named = {key: value or "" for key, value in match.groupdict().items()}
            return known.error(known.cause.format(words, **named), hint=known.hint)
    return EngineError(f"Docker Engine error: {words}")


@dataclass(frozen=True, slots=True)
class _KnownFailure:
    """A known connection failure; the hint may use `{host}` of the URL and `{group}` of a local socket."""

    pattern: str
    cause: str
    hint: str


_KNOWN_FAILURES: Final = (
    _KnownFailure(
        r"Permission denied",
        "no permission to use Docker Engine at {address}",
        "run `sudo usermod -aG {group} $USER` and log in again, or run as root",
    ),
    _KnownFailure(
        r"timed? ?out",
        "Docker Engine at {address} did not answer in time",
        NO_ANSWER_HINT,
    ),
    _KnownFailure(
        r"HTTP request to an HTTPS server|sent an HTTP response to an HTTPS|WRONG_VERSION_NUMBER|record layer"
        r"|CERTIFICATE|certificate|SSLError|\bTLS\b|\bssl\b",
        "Docker Engine at {address} cannot be reached with these TLS settings: {words}",
        "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH as the engine needs them, or unset both",
    ),
    _KnownFailure(
        r"Name or service not known|name resolution|No address associated|nodename nor servname",
        "cannot resolve the host of Docker Engine: {address}",
        "check the name in the address",
    ),
)
_SSH: Final = _KnownFailure(
    "", "cannot reach Docker Engine at {address}", "check that `ssh {host} docker version` works"
)
_NO_SOCKET: Final = _KnownFailure("", "cannot reach Docker Engine at {address}: no such socket", _START_IT)
_DEAD_SOCKET: Final = _KnownFailure(
    "", "cannot reach Docker Engine at {address}: no process listens on the socket", _START_IT
)
_ANY: Final = _KnownFailure("", "cannot reach Docker Engine at {address}", _START_IT)


def unreachable(address: Address, error: Exception) -> EngineError:
    """Return the error for an engine that cannot be reached or does not answer in time."""
    words = str(error)
    known = next((one for one in _KNOWN_FAILURES if re.search(one.pattern, words, re.IGNORECASE)), None)
    found = known or _by_kind(address, words)
    parts = {"address": address, "words": words[:_LONGEST], "group": _group(address.socket)}
    host = urlsplit(address.url).netloc
    return EngineError(found.cause.format(**parts), hint=found.hint.format(**parts, host=host))


def _by_kind(address: Address, words: str) -> _KnownFailure:
    if address.url.startswith("ssh://"):
        return _SSH
    if address.socket and "No such file" in words:
        return _NO_SOCKET
    return _DEAD_SOCKET if address.socket and "refused" in words else _ANY


def _group(socket: str) -> str:
    """The group that may use the socket; "docker" if it is unknown."""
    try:
        return grp.getgrgid(Path(socket).stat().st_gid).gr_name if socket else "docker"
    except (OSError, KeyError):
        return "docker"
