"""The sections about a trial's container: environment, log policies, bind mounts and resources.

A container must not take over its host, so mounts of system directories and of engine sockets are rejected;
the JSON Schema has the same rules as patterns.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from detbuild.config.secrets import SECRET, VARIABLES
from detbuild.config.section import (
    NULL,
    AbsolutePath,
    Clause,
    Count,
    IntRange,
    ListOf,
    SchemaForm,
    Section,
    TextPattern,
    any_of,
    matching_text,
    not_both,
    not_matching,
    nullable,
    or_schema,
    require,
    wrong,
)
from detbuild.config.yaml import show

if TYPE_CHECKING:
    from collections.abc import Iterable

DeviceKind = Literal["cpu", "cuda", "rocm"]
KINDS: Final[tuple[DeviceKind, ...]] = ("cpu", "cuda", "rocm")
# The grammar of github.com/distribution/reference; an image ID is accepted too.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9_.+-]*:[0-9a-fA-F]{32,128})?|sha256:[0-9a-f]{64}"
)
_MAX_REFERENCE: Final = 512
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE_TEXT: Final = matching_text(_REFERENCE.pattern, "an image reference", maxLength=_MAX_REFERENCE)
_VARIABLE_TEXT: Final = matching_text(rf"{_VARIABLE.pattern}=[\s\S]*", "NAME=VALUE")
_Port = Annotated[int, IntRange(1, 65535)]
Capability = Annotated[str, TextPattern(r"[A-Za-z_]{2,40}", "a Linux capability, e.g. SYS_PTRACE")]
# RE2, which Determined uses, has these classes; Python's `re` reads them as sets of letters.
_POSIX_CLASS: Final = re.compile(r"\[:\^?[a-z]+:\]")
_Action = Literal["cancel_retries", "exclude_node"]
Propagation = Literal["rprivate", "private", "rshared", "shared", "rslave", "slave"]
# A container that writes to any of these can break or take over the host.
_WHOLE_HOST: Final = frozenset({"/", "/boot", "/dev", "/etc", "/run", "/var", "/var/lib", "/var/run"})
_KERNEL_AND_ENGINE: Final = ("/proc", "/sys", "/var/lib/docker", "/var/lib/containerd")
SOCKETS: Final = frozenset({"docker.sock", "containerd.sock", "podman.sock", "crio.sock"})
SOCKET_RISK: Final = "a container engine's socket, which gives root access to the host"
_CONTAINER_PATHS: Final = ("/proc", "/sys", "/opt/detbuild", "/run/detbuild")
# The same rules as patterns, for paths without `..`: those that `normpath` maps to a reserved path.
PARENT: Final = r"(?:[\s\S]*/)?\.\.(?:/[\s\S]*)?"
_STEP: Final = r"/(?:\.?/)*"  # between two names
_END: Final = rf"(?:{_STEP}\.?)?"
_ROOT: Final = rf"{_STEP}\.?"
# No flags, because patterns of JSON Schema have none.
_SIZE: Final = re.compile(
    r"[ \t]*([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgtpKMGTP])(?:[iI]?[bB]|[iI])?|[bB])?[ \t]*"
)
_FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_AS_TEXT: Final = or_schema(matching_text(_SIZE.pattern, "a size, e.g. 4g"))
Cpus = Annotated[float, Field(ge=0.01, le=1_000_000)]
_OF_MRW: Final = "letters of `mrw`, each once"
_MODE: Final = r"(?!.*(.).*\1)[rwm]+"
_PAIR: Final = matching_text(rf"/[^:\0]*:/[^:\0]*(?::{_MODE})?", "host:container or host:container:mode")


def _reference(value: str) -> str:
    if len(value) > _MAX_REFERENCE or not _REFERENCE.fullmatch(value):
        hint = "write it in lower case" if _REFERENCE.fullmatch(value.lower()) else "write `repository:tag`"
        raise wrong(f"is not a valid image reference: {show(value)}", hint=hint)
    return value


def _variable(value: object) -> str:
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        raise wrong("must be text of the form NAME=VALUE, not a map", hint=f"write `- {name}=...`")
    if not isinstance(value, str):
        raise wrong(
            "must be text of the form NAME=VALUE",
            hint="write `- NAME=VALUE`, in quotes where YAML needs them",
        )
    name, equals, _ = value.partition("=")
    if not equals:  # not quoted: it may be a secret value without its name
        raise wrong("must be NAME=VALUE, but has no `=`", hint="write `NAME=` for an empty value")
    if not _VARIABLE.fullmatch(name):
        raise wrong("has an invalid variable name before the `=`", hint="use letters, digits and `_`")
    return value


def for_each_kind(value: object) -> object:
    """Expand a value for all kinds of device into one for each; `gpu` is the old name of `cuda`."""
    if isinstance(value, (str, list)):
        return dict.fromkeys(KINDS, value)
    if isinstance(value, dict) and "gpu" in value:
        others = {key: item for key, item in value.items() if key != "gpu"}
        if value["gpu"] is not None and others.get("cuda") is not None:
            raise wrong("is the old name of cuda, which is also given", at=("gpu",), hint="keep cuda")
        return others if value["gpu"] is None else {**others, "cuda": value["gpu"]}
    return value


def _with_gpu(schema: Clause) -> None:
    """Add the old name that `for_each_kind` accepts."""
    schema["properties"]["gpu"] = {**schema["properties"]["cuda"], "description": "The old name of `cuda`."}
    schema |= not_both("gpu", "cuda")


_Reference = Annotated[str, AfterValidator(_reference), WithJsonSchema(_REFERENCE_TEXT)]
_Variable = Annotated[str, BeforeValidator(_variable), WithJsonSchema(_VARIABLE_TEXT)]


class Images(Section):
    """Base images by kind of device; None: detbuild chooses."""

    model_config = ConfigDict(json_schema_extra=_with_gpu)

    cpu: _Reference | None = None
    """For trials without a GPU."""
    cuda: _Reference | None = None
    """For trials on NVIDIA GPUs; formerly `gpu`."""
    rocm: _Reference | None = None
    """For trials on AMD GPUs."""

    def of(self, kind: DeviceKind) -> str | None:
        image: str | None = getattr(self, kind)
        return image


class Variables(Section):
    """Environment variables by kind of device: `NAME=VALUE`, in order."""

    model_config = ConfigDict(json_schema_extra=_with_gpu)

    cpu: ListOf[_Variable] = ()
    """For trials without a GPU."""
    cuda: ListOf[_Variable] = ()
    """For trials on NVIDIA GPUs; formerly `gpu`."""
    rocm: ListOf[_Variable] = ()
    """For trials on AMD GPUs."""

    def of(self, kind: DeviceKind) -> tuple[str, ...]:
        variables: tuple[str, ...] = getattr(self, kind)
        return variables


class RegistryAuth(Section):
    """Credentials for a registry; never shown."""

    username: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """User name."""
    password: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Password."""
    auth: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Base64 of `username:password`, instead of both."""
    email: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Email address of the user."""
    serveraddress: str | None = None
    """Registry that the credentials are for."""
    identitytoken: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Identity token, instead of a password."""
    registrytoken: Annotated[str | None, SECRET] = Field(default=None, repr=False)
    """Bearer token issued by the registry."""

    def credentials(self) -> dict[str, str]:
        """Return the credentials that are set, by name."""
        return self.model_dump(exclude_none=True)


class ProxyPort(Section):
    proxy_port: _Port
    """Port in the container."""
    proxy_tcp: bool = False
    """Whether the port serves plain TCP rather than HTTP."""
    unauthenticated: bool = False
    """Whether access needs no login."""
    default_service_id: str | None = None
    """Name of the proxied service."""


def _some_absent(ports: Clause) -> Clause:
    return {**ports, "additionalProperties": nullable(ports["additionalProperties"])}


class Environment(Section):
    image: Annotated[Images, BeforeValidator(for_each_kind), or_schema(_REFERENCE_TEXT)] = (
        Images.model_construct()
    )
    """Base image: one, or one for each kind of device; absent: detbuild chooses."""
    environment_variables: Annotated[
        Variables,
        BeforeValidator(for_each_kind),
        or_schema({"type": "array", "items": _VARIABLE_TEXT}),
        VARIABLES,
    ] = Variables.model_construct()
    """List of `NAME=VALUE`, or one list for each kind of device; values are never shown."""
    ports: Annotated[Mapping[str, _Port], SchemaForm(_some_absent)] = Field(default_factory=dict)
    """Container ports by name, each published on a free port of the host."""
    proxy_ports: ListOf[ProxyPort] = ()
    """Ports to proxy; no effect on a single host."""
    force_pull_image: bool = False
    """Pull a newer image even if one is present."""
    registry_auth: RegistryAuth | None = None
    """Credentials for the registry of `image`; never shown."""
    add_capabilities: ListOf[Capability] = ()
    """Linux capabilities to add to the container, e.g. SYS_PTRACE."""
    drop_capabilities: ListOf[Capability] = ()
    """Linux capabilities to drop from the container."""
    read_only_root: bool = False
    """Whether a trial can write only to its work directory, `/tmp` and its home."""
    pod_spec: Annotated[Mapping[str, JsonValue] | None, SECRET] = None
    """Kubernetes pod spec; no effect on a single host."""


def _pattern(value: str) -> str:
    if found := _POSIX_CLASS.search(value):
        what = f"uses the POSIX class {found[0]}, which Python's `re` does not support"
        raise wrong(what, hint=r"write `\d`, `\s`, `\w` or a set, e.g. `[a-z]`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a set such as [[a] is odd but legal
            re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"is not a valid regular expression: {error}") from None
    return value


def _action(value: object) -> object:
    """Unwrap the form before 0.38, `{type: cancel_retries}`, to the bare name."""
    return value["type"] if isinstance(value, dict) and value.keys() == {"type"} else value


def _or_typed(name: Clause) -> Clause:
    typed = {"required": ["type"], "properties": {"type": name}, "additionalProperties": NULL}
    return any_of([name, {"type": "object", **typed}])


class LogPolicy(Section):
    """A log pattern with an action. The name of a default without a pattern disables that default."""

    model_config = ConfigDict(json_schema_extra=any_of([require("name"), require("pattern", "action")]))

    name: str | None = None
    """Name of the policy; that of a default (`CUDA OOM`, `ECC Error`) replaces it, or disables it if
    there is no pattern."""
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """Regular expression to search for in each log line."""
    action: Annotated[_Action, BeforeValidator(_action), SchemaForm(_or_typed)] | None = None
    """cancel_retries: do not restart the trial if it fails. exclude_node: the same on a single host."""

    @model_validator(mode="after")
    def _named_or_whole(self) -> LogPolicy:
        if self.name is None and (self.pattern is None or self.action is None):
            raise wrong("needs a name, or both a pattern and an action")
        return self


DEFAULT_POLICIES: Final = (
    LogPolicy.model_construct(name="CUDA OOM", pattern=".*CUDA out of memory.*"),
    LogPolicy.model_construct(name="ECC Error", pattern=".*uncorrectable ECC error encountered.*"),
)


def with_defaults(policies: tuple[LogPolicy, ...]) -> tuple[LogPolicy, ...]:
    """Prepend the default policies that the config does not override."""
    names: set[str] = set()
    for index, policy in enumerate(policies):
        if policy.name is None:
            continue
        if policy.name in names:
            raise wrong(f"the name {policy.name[:40]!r} is given twice", at=(index, "name"))
        names.add(policy.name)
    return tuple(policy for policy in DEFAULT_POLICIES if policy.name not in names) + policies


class RetentionPolicy(Section):
    log_retention_days: Annotated[int, IntRange(-1, 32767)] | None = None
    """Days to keep logs; -1: forever."""


def _host_path(path: str) -> str:
    """Accept an absolute host path that is safe to mount.

    Raises:
        PydanticCustomError: the path is relative, or a system directory of the host.
    """
    if not path.startswith("/"):
        raise wrong(f"must be absolute, not {path[:40]!r}", hint="start it with `/`")
    found = reserved(posixpath.normpath(path).replace("//", "/"))
    if found is not None:
        what, hint = found
        raise wrong(what, hint=hint)
    return path


def reserved(normal: str, *, engine_root: str = "") -> tuple[str, str] | None:
    """Return why a normalized host path is not safe to mount, and a hint; None if it is safe."""
    if posixpath.basename(normal) in SOCKETS:
        return f"is {SOCKET_RISK}", "remove the mount"
    of_engine = (*_KERNEL_AND_ENGINE, engine_root) if engine_root else _KERNEL_AND_ENGINE
    if normal in _WHOLE_HOST or _within(normal, of_engine):
        return f"{normal[:40]} is a system directory of the host", "mount a data directory"
    return None


def _container_path(path: str) -> str:
    """Accept a path in the container; a relative one is below the work directory.

    Raises:
        PydanticCustomError: the path is the work directory, contains `..`, or hides what a trial needs.
    """
    if ".." in path.split("/"):
        raise wrong("must not contain `..`")
    normal = posixpath.normpath(path).replace("//", "/") if path else "."
    if normal == ".":
        raise wrong("is the work directory itself", hint="name a directory below it, e.g. `data`")
    if normal == "/" or _within(normal, _CONTAINER_PATHS):
        raise wrong(f"{normal[:40]} is in use by the container itself", hint="mount it elsewhere")
    return path


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


def _steps(path: str) -> str:
    return _STEP + _STEP.join(map(re.escape, path.strip("/").split("/")))


def _below(paths: Iterable[str]) -> str:
    return "|".join(rf"{_steps(path)}(?:/[\s\S]*)?" for path in paths)


def _host_text() -> Clause:
    whole_host = "|".join(rf"{_steps(path)}{_END}" for path in sorted(_WHOLE_HOST - {"/"}))
    sockets = "|".join(map(re.escape, sorted(SOCKETS)))
    reserved_ = rf"{_ROOT}|{whole_host}|{_below(_KERNEL_AND_ENGINE)}|[\s\S]*/(?:{sockets}){_END}"
    refused = rf"{not_matching(PARENT)}(?:{reserved_})"
    return matching_text(
        rf"{not_matching(refused)}/[\s\S]*", "an absolute path outside the host's system directories"
    )


def _container_text() -> Clause:
    refused = rf"{PARENT}|(?:\.{_END})?|{_ROOT}|{_below(_CONTAINER_PATHS)}"
    return matching_text(
        rf"{not_matching(refused)}[\s\S]*", "a container path that is not in use, without `..`"
    )


HostPath = Annotated[str, AfterValidator(_host_path), WithJsonSchema(_host_text())]
ContainerPath = Annotated[str, AfterValidator(_container_path), WithJsonSchema(_container_text())]


class BindMount(Section):
    host_path: HostPath
    """Absolute path of the directory on the host."""
    container_path: ContainerPath
    """Mount point in the container; a relative path is below the work directory."""
    read_only: bool = False
    """Mount read-only."""
    propagation: Propagation = "rprivate"
    """Mount propagation, as in Docker."""


def distinct(mounts: tuple[BindMount, ...]) -> tuple[BindMount, ...]:
    """Reject two mounts with the same container path."""
    places: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        first = places.setdefault(posixpath.normpath(mount.container_path), index)
        if first != index:
            what = f"is also the container_path of bind_mounts[{first}]"
            raise wrong(what, at=(index, "container_path"), hint="give each mount its own path")
    return mounts


def _bytes(value: object) -> object:
    """Parse `4g`, `4 GiB` or `4gb`, all in powers of 1024 as in Docker."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        hint = "write bytes, or a number with k, m, g, t or p: `4g`"
        raise wrong(f"is not a valid size: {show(value)}", hint=hint)
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])


Bytes = Annotated[int, IntRange(1), BeforeValidator(_bytes), _AS_TEXT]
Memory = Annotated[
    int, IntRange(6 << 20), BeforeValidator(_bytes), _AS_TEXT
]  # engines reject a smaller limit


def _mode(value: str) -> str:
    if not re.fullmatch(_MODE, value):
        raise wrong(f"is not a valid device mode: {show(value)}", hint=f"use {_OF_MRW}")
    return value


class Device(Section):
    host_path: AbsolutePath
    """Device on the host, e.g. `/dev/infiniband`."""
    container_path: AbsolutePath
    """Path in the container."""
    mode: Annotated[str, AfterValidator(_mode), WithJsonSchema(matching_text(_MODE, _OF_MRW))] = "mrw"
    """Allowed access: m (mknod), r (read), w (write)."""


def _device(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) not in {2, 3}:
        raise wrong(
            f"is not a valid device: {show(value)}", hint="write host:container or host:container:mode"
        )
    return dict(zip(("host_path", "container_path", "mode"), parts, strict=False))


ConfigDevice = Annotated[Device, BeforeValidator(_device), or_schema(_PAIR)]


class Resources(Section):
    slots_per_trial: Count = 1
    """GPUs per trial; 0 trains on the CPU."""
    shm_size: Bytes = 4 << 30
    """Size of `/dev/shm`: bytes, or text such as `4g`, in powers of 1024."""
    memory: Memory | None = None
    """Memory limit of a trial, `/dev/shm` included; absent: the host's memory less a reserve."""
    cpus: Cpus | None = None
    """CPU limit of a trial in cores, e.g. 1.5; absent: no limit."""
    devices: ListOf[ConfigDevice] = ()
    """Host devices: `host:container`, `host:container:mode`, or a map."""
    max_slots: Count | None = None
    """Limit on slots in use by all trials of the experiment; absent: no limit."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of a host that several experiments use: twice the weight, twice the slots."""
    priority: Annotated[int, IntRange(1, 99)] | None = None
    """Priority from 1 to 99; lower numbers go first."""
    resource_pool: str = ""
    """Resource pool of a cluster; no effect on a single host."""
    is_single_node: bool | None = None
    """Whether a trial must fit one node; no effect on a single host."""
    native_parallel: bool | None = None
    """Field of old versions; no effect."""
    agent_label: str | None = None
    """Field of old versions; no effect."""
