"""The container's environment: image, variables, ports, capabilities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from detbuild.config.clauses import Clause, SchemaForm, matching_text, not_both, nullable, or_schema
from detbuild.config.fields import IntRange, ListOf, TextPattern
from detbuild.config.problems import show
from detbuild.config.secrets import SECRET, VARIABLES
from detbuild.config.section import Section, wrong

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


_REFERENCE_TEXT: Final = matching_text(_REFERENCE.pattern, "an image reference", maxLength=_MAX_REFERENCE)
_VARIABLE_TEXT: Final = matching_text(rf"{_VARIABLE.pattern}=[\s\S]*", "NAME=VALUE")
Reference = Annotated[str, AfterValidator(_reference), WithJsonSchema(_REFERENCE_TEXT)]
Variable = Annotated[str, BeforeValidator(_variable), WithJsonSchema(_VARIABLE_TEXT)]


class Images(Section):
    """Base images by kind of device; None: detbuild chooses."""

    model_config = ConfigDict(json_schema_extra=_with_gpu)

    cpu: Reference | None = None
    """For trials without a GPU."""
    cuda: Reference | None = None
    """For trials on NVIDIA GPUs; formerly `gpu`."""
    rocm: Reference | None = None
    """For trials on AMD GPUs."""

    def of(self, kind: DeviceKind) -> str | None:
        image: str | None = getattr(self, kind)
        return image


class Variables(Section):
    """Environment variables by kind of device: `NAME=VALUE`, in order."""

    model_config = ConfigDict(json_schema_extra=_with_gpu)

    cpu: ListOf[Variable] = ()
    """For trials without a GPU."""
    cuda: ListOf[Variable] = ()
    """For trials on NVIDIA GPUs; formerly `gpu`."""
    rocm: ListOf[Variable] = ()
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


Port = Annotated[int, IntRange(1, 65535)]
Capability = Annotated[str, TextPattern(r"[A-Za-z_]{2,40}", "a Linux capability, e.g. SYS_PTRACE")]


class ProxyPort(Section):
    proxy_port: Port
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
    ports: Annotated[Mapping[str, Port], SchemaForm(_some_absent)] = Field(default_factory=dict)
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
