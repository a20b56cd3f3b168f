"""The engine's own words as a cause and a mend."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from detbuild.errors import DiskFullError, EngineError

_START_IT: Final = "start it, or set DOCKER_HOST to where it runs; `detbuild doctor` checks the host"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """`cause` may use the groups of the pattern."""

    pattern: str
    cause: str
    mend: str
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
        "make it, or mend bind_mounts in the experiment config",
    ),
    _Refusal(
        r"error gathering device information while adding custom device \"(?P<path>[^\"]*)\"",
        "the device {path} is not there on the engine's host",
        "mend resources.devices in the experiment config",
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


def refusal(words: str) -> EngineError:
    """What the engine said, in the user's terms where they are known."""
    for known in _REFUSALS:
        match = re.search(known.pattern, words)
        if match:
            named = {key: value or "" for key, value in match.groupdict().items()}
            return known.error(known.cause.format(words, **named), mend=known.mend)
    return EngineError(f"Docker Engine refused: {words}")


def unreachable(host: str | None, error: Exception) -> EngineError:
    """No answer, or none in time."""
    where = f" at {host}" if host else ""
    words = str(error)
    if "Permission denied" in words:
        return EngineError(
            f"no permission to use Docker Engine{where}",
            mend="join the group docker and log in again, or run as root",
        )
    if re.search(r"timed? ?out", words, re.IGNORECASE):
        return EngineError(
            f"Docker Engine{where} did not answer in time",
            mend="see whether `docker info` answers; a stalled disk under the engine looks like this",
        )
    return EngineError(f"cannot reach Docker Engine{where}", mend=_START_IT)
