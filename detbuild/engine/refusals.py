"""The engine's own words as a cause and a hint."""

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
_START_IT: Final = "start it, or set DOCKER_HOST to where it runs; `detbuild doctor` checks the host"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """`cause` may use the groups of the pattern."""

    pattern: str
    cause: str
    hint: str
    error: type[EngineError] = EngineError


_REFUSALS: Final = (
    _Refusal(
        r'could not select device driver "?(?P<driver>[\w.-]*)"?',
        "Docker Engine cannot hand GPUs to containers: it has no device driver for them",
        "install the NVIDIA container toolkit and run `nvidia-ctk runtime configure`, "
        "or make a CDI specification with `nvidia-ctk cdi generate`; then restart the engine",
    ),
    _Refusal(
        r"unresolvable CDI devices (?P<names>[^:\n]+)",
        "Docker Engine knows no CDI device {names}",
        "list what there is with `detbuild doctor`; "
        "make a specification with `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
    ),
    _Refusal(
        r"(CDI device injection|cdi).*(not enabled|disabled)",
        "Docker Engine was told not to use CDI",
        'set "features": {"cdi": true} in the engine\'s daemon.json and restart it',
    ),
    _Refusal(
        r"nvidia-container-cli: (?P<words>.*)",
        "the NVIDIA driver refused the container: {words}",
        "run `nvidia-smi` on the host: driver and GPU have to answer there first",
    ),
    _Refusal(
        r"bind source path does not exist: (?P<path>.*)",
        "{path} is to be mounted, but is not there on the engine's host",
        "make it, or hint bind_mounts in the experiment config",
    ),
    _Refusal(
        r"error gathering device information while adding custom device \"(?P<path>[^\"]*)\"",
        "the device {path} is not there on the engine's host",
        "hint resources.devices in the experiment config",
    ),
    _Refusal(
        r"exec: \"(?P<program>[^\"]*)\": .*(not found|no such file)",
        "the image has no program {program}",
        "use a base image that has it",
    ),
    _Refusal(
        r"[Nn]o such image: (?P<image>.*)",
        "the image {image} is not there",
        "submit again: it is built anew",
    ),
    _Refusal(
        r"no space left on device",
        "the disk of Docker Engine is full",
        "make room: `docker system df` shows what takes it, `docker builder prune` frees old build steps",
        DiskFullError,
    ),
    _Refusal(
        r"(pull access denied for|repository) (?P<image>[^ ,]+).*(does not exist|may require|not found)",
        "the registry has no image {image}, or does not show it to you",
        "check the name; log in with `docker login` when it is private",
    ),
    _Refusal(
        r"manifest for (?P<image>\S+) not found"
        r"|failed to resolve reference \"(?P<other>[^\"]+)\".*: not found",
        "the registry has no image {image}{other}",
        "check its name and tag",
    ),
    _Refusal(
        r"(unauthorized|authentication required|no basic auth credentials).*",
        "the registry wants credentials: {0}",
        "log in with `docker login`",
    ),
    _Refusal(
        r"(no such host|server misbehaving|connection refused|i/o timeout|network is unreachable"
        r"|Client\.Timeout exceeded|TLS handshake timeout).*",
        "Docker Engine cannot reach the registry: {0}",
        "check the network, or set a proxy for the engine",
    ),
    _Refusal(
        r"invalid reference format.*",
        "not an image reference: {0}",
        "use [registry/]name[:tag] in lower case, or an id",
    ),
    _Refusal(
        r"port is already allocated|address already in use",
        "a port of the container is taken on the host",
        "end what uses it, or choose another port",
    ),
)


def engine_error(words: str) -> EngineError:
    """What the engine said, in the user's terms where they are known."""
    for known in _REFUSALS:
        match = re.search(known.pattern, words)
        if match:
            named = {key: value or "" for key, value in match.groupdict().items()}
            return known.error(known.cause.format(words, **named), hint=known.hint)
    return EngineError(f"Docker Engine refused: {words}")


@dataclass(frozen=True, slots=True)
class _Silence:
    """Why there is no answer; the hint may use `{host}` of the URL, and `{group}` of a local socket."""

    pattern: str
    cause: str
    hint: str


_SILENCES: Final = (
    _Silence(
        r"Permission denied",
        "no permission to use Docker Engine at {address}",
        "run `sudo usermod -aG {group} $USER` and log in again, or run as root",
    ),
    _Silence(
        r"timed? ?out",
        "Docker Engine at {address} did not answer in time",
        "see whether `docker info` answers; a stalled disk under the engine looks like this",
    ),
    _Silence(
        r"HTTP request to an HTTPS server|sent an HTTP response to an HTTPS|WRONG_VERSION_NUMBER|record layer"
        r"|CERTIFICATE|certificate|SSLError|\bTLS\b|\bssl\b",
        "Docker Engine at {address} cannot be reached with these TLS settings: {words}",
        "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH as the engine needs them, or unset both",
    ),
    _Silence(
        r"Name or service not known|name resolution|No address associated|nodename nor servname",
        "the host of Docker Engine is unknown: {address}",
        "check the name in the address",
    ),
)
_SSH: Final = _Silence(
    "", "cannot reach Docker Engine at {address}", "see whether `ssh {host} docker version` answers"
)
_NO_SOCKET: Final = _Silence("", "cannot reach Docker Engine at {address}: no such socket", _START_IT)
_DEAD_SOCKET: Final = _Silence(
    "", "cannot reach Docker Engine at {address}: no process listens on the socket", _START_IT
)
_ANY: Final = _Silence("", "cannot reach Docker Engine at {address}", _START_IT)


def unreachable(address: Address, error: Exception) -> EngineError:
    """No answer, or none in time: where it was looked for, and who said so."""
    words = str(error)
    known = next((one for one in _SILENCES if re.search(one.pattern, words, re.IGNORECASE)), None)
    found = known or _by_kind(address, words)
    parts = {"address": address, "words": words[:_LONGEST], "group": _group(address.socket)}
    host = urlsplit(address.url).netloc
    return EngineError(found.cause.format(**parts), hint=found.hint.format(**parts, host=host))


def _by_kind(address: Address, words: str) -> _Silence:
    if address.url.startswith("ssh://"):
        return _SSH
    if address.socket and "No such file" in words:
        return _NO_SOCKET
    return _DEAD_SOCKET if address.socket and "refused" in words else _ANY


def _group(socket: str) -> str:
    """The group that may use the socket; Docker's usual one where there is no telling."""
    try:
        return grp.getgrgid(Path(socket).stat().st_gid).gr_name if socket else "docker"
    except (OSError, KeyError):
        return "docker"
