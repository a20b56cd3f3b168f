"""The host's `config.yaml`: defaults for every experiment of a home, and limits on the host's resources.

Its fields are those of Determined's `master.yaml`, so such a file works as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, ValidationError, model_validator

from detbuild.config.environment import (
    BindMount,
    Bytes,
    Capability,
    ConfigDevice,
    Cpus,
    Images,
    LogPolicy,
    Memory,
    RegistryAuth,
    Variables,
    distinct,
    for_each_kind,
)
from detbuild.config.experiment import Pbs, Slurm
from detbuild.config.explain import explain
from detbuild.config.secrets import SECRET, VARIABLES
from detbuild.config.section import ListOf, OpenUnion, Positive, Section, TextPattern, wrong
from detbuild.config.sources import Layer, Origin, located_errors, mapping_layer
from detbuild.config.storage import Storage
from detbuild.config.yaml import Node, Position, read_text, read_value
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from detbuild.config.yaml import Problem

HOST_CONFIG: Final = "config.yaml"
DOCKER: Final = "docker"  # the runtime without a section of its own
_LONGEST_HOOK: Final = 100_000  # characters; Linux limits an argument to 128 KiB


def _gpu_name(value: object) -> object:
    return str(value) if type(value) is int else value


_Network = Annotated[
    str, TextPattern(r"[A-Za-z0-9][\w.-]*", "`bridge`, `host` or the name of a Docker network")
]
_GpuName = Annotated[str, TextPattern(r"\S+", "a GPU index, UUID or CDI name"), BeforeValidator(_gpu_name)]


class TaskContainerDefaults(Section):
    """Defaults for containers; the last fields have no effect on a single host."""

    image: Annotated[Images, BeforeValidator(for_each_kind)] | None = None
    environment_variables: Annotated[
        Annotated[Variables, BeforeValidator(for_each_kind)] | None, VARIABLES
    ] = None
    registry_auth: RegistryAuth | None = None
    force_pull_image: bool | None = None
    add_capabilities: ListOf[Capability] = ()
    drop_capabilities: ListOf[Capability] = ()
    bind_mounts: Annotated[ListOf[BindMount], AfterValidator(distinct)] = ()
    devices: ListOf[ConfigDevice] = ()
    shm_size_bytes: Bytes | None = None
    memory: Memory | None = None
    cpus: Cpus | None = None
    read_only_root: bool | None = None
    log_policies: ListOf[LogPolicy] = ()
    preemption_timeout: Positive | None = None
    slurm: Slurm | None = None
    pbs: Pbs | None = None
    startup_hook: Annotated[str, Field(max_length=_LONGEST_HOOK), SECRET] = ""
    network_mode: _Network = "bridge"
    cpu_pod_spec: Annotated[JsonValue, SECRET] = None
    gpu_pod_spec: Annotated[JsonValue, SECRET] = None
    checkpoint_gc_pod_spec: Annotated[JsonValue, SECRET] = None
    kubernetes: Annotated[JsonValue, SECRET] = None
    dtrain_network_interface: JsonValue = None
    nccl_port_range: JsonValue = None
    gloo_port_range: JsonValue = None
    work_dir: JsonValue = None


class RuntimeConfig(Section):
    """The fields of all runtimes; each adds `kind`, a literal with a default, and its own."""

    if TYPE_CHECKING:
        kind: str


class DockerConfig(RuntimeConfig):
    kind: Literal["docker"] = "docker"
    """The Docker Engine that builds the images."""


RUNTIMES: Final = OpenUnion(
    RuntimeConfig, "kind", {DOCKER: DockerConfig}, group="detbuild.runtimes", call="open"
)


class HostFile(Section):
    """The fields with effect here; `_MASTER_FIELDS` are accepted too."""

    task_container_defaults: TaskContainerDefaults = TaskContainerDefaults.model_construct()
    checkpoint_storage: JsonValue = None  # checked by `_Stored`: an experiment's config may complete it
    cpu_trials: Positive | None = None
    gpus: ListOf[_GpuName] | None = None
    runtime: str = DOCKER
    runtimes: Annotated[dict[str, Annotated[RuntimeConfig, RUNTIMES]], SECRET] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> HostFile:
        if self.runtime not in {DOCKER, *self.runtimes}:
            known = ", ".join(sorted({DOCKER, *self.runtimes}))
            what = f"{self.runtime!r} is not one of runtimes: {known}"
            raise wrong(what, at=("runtime",), hint="add it to `runtimes`")
        return self


class _Stored(Section):
    checkpoint_storage: Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class HostConfig:
    """The host's config. `layers` rank below the templates of every config."""

    layers: tuple[Layer, ...] = ()
    startup_hook: str = ""  # a script to run in the container before the entrypoint
    network: str = "bridge"
    cpu_trials: int | None = None  # CPU slots: concurrent trials without GPUs
    gpus: tuple[str, ...] | None = None  # the GPUs to use; None: all
    runtime: str = DOCKER  # of new experiments
    runtimes: Mapping[str, RuntimeConfig] = field(default_factory=dict, repr=False)  # may have secrets
    ignored_fields: tuple[str, ...] = ()  # fields of the file that have no effect on a single host

    def warnings(self) -> tuple[Warned, ...]:
        """Return at most one warning."""
        if not self.ignored_fields:
            return ()
        names = ", ".join(self.ignored_fields)
        message = f"ignored in {HOST_CONFIG} of the home, no effect on a single host: {names}"
        return (Warned(message, "remove them, or keep them for a cluster"),)


NO_HOST_CONFIG: Final = HostConfig()
# The path of each default in an experiment's config.
_PATHS: Final = {
    "image": ("environment", "image"),
    "environment_variables": ("environment", "environment_variables"),
    "registry_auth": ("environment", "registry_auth"),
    "force_pull_image": ("environment", "force_pull_image"),
    "add_capabilities": ("environment", "add_capabilities"),
    "drop_capabilities": ("environment", "drop_capabilities"),
    "bind_mounts": ("bind_mounts",),
    "devices": ("resources", "devices"),
    "shm_size_bytes": ("resources", "shm_size"),
    "memory": ("resources", "memory"),
    "cpus": ("resources", "cpus"),
    "read_only_root": ("environment", "read_only_root"),
    "log_policies": ("log_policies",),
    "preemption_timeout": ("preemption_timeout",),
    "slurm": ("slurm",),
    "pbs": ("pbs",),
}
_HOST_FIELDS: Final = frozenset({*_PATHS, "startup_hook", "network_mode"} - {"slurm", "pbs"})
_MASTER_FIELDS: Final = frozenset(
    {
        "additional_resource_managers",
        "cache",
        "cluster_name",
        "config_file",
        "db",
        "enable_cors",
        "feature_switches",
        "integrations",
        "internal",
        "launch_error",
        "log",
        "logging",
        "notebook_timeout",
        "observability",
        "oidc",
        "port",
        "provisioner",
        "reserved_ports",
        "resource_manager",
        "resource_pools",
        "retention_policy",
        "root",
        "saml",
        "scheduler",
        "scim",
        "security",
        "telemetry",
        "tensorboard_timeout",
        "ui_customization",
        "webhooks",
    }
)


def host_config(home: Path) -> HostConfig:
    """Read `config.yaml` of a home (`$DETBUILD_HOME`), if present.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or has an unknown field or invalid value.
    """
    path = home / HOST_CONFIG
    if not path.exists():
        return NO_HOST_CONFIG
    document = read_value(read_text(path, "host's config"), str(path))
    if document is None or document.value is None:
        return NO_HOST_CONFIG
    layer = mapping_layer(document.plain(), str(path), document=document)
    file = _checked(layer)
    defaults = file.task_container_defaults
    return HostConfig(
        layers=_layers(layer, document),
        startup_hook=defaults.startup_hook,
        network=defaults.network_mode,
        cpu_trials=file.cpu_trials,
        gpus=file.gpus,
        runtime=file.runtime,
        runtimes=file.runtimes,
        ignored_fields=_ignored_fields(layer),
    )


def _checked(layer: Layer) -> HostFile:
    own = {key: value for key, value in layer.raw.items() if key not in _MASTER_FIELDS}
    found = list(layer.problems)
    if "checkpoint_storage" in own:
        try:
            _Stored.model_validate({"checkpoint_storage": own["checkpoint_storage"]})
        except ValidationError as error:
            found += [problem for problem in explain(error, own, _Stored) if not problem.later]
    try:
        file = HostFile.model_validate(own)
    except ValidationError as error:
        raise _errors(layer, [*found, *explain(error, own, HostFile)]) from None
    if found:
        raise _errors(layer, found)
    return file


def _errors(layer: Layer, found: list[Problem]) -> Exception:
    return located_errors([layer], ((Origin(0, problem.path), problem) for problem in found))


def _ignored_fields(layer: Layer) -> tuple[str, ...]:
    defaults = layer.raw.get("task_container_defaults")
    below = defaults if isinstance(defaults, dict) else {}
    return (
        *sorted(layer.raw.keys() & _MASTER_FIELDS),
        *(f"task_container_defaults.{name}" for name in below if name not in _HOST_FIELDS),
    )


def _layers(layer: Layer, document: Node) -> tuple[Layer, ...]:
    """Map the defaults of the file to an experiment's config, each value with its position."""
    root = Node(document.position, {})
    for path, pair in _defaults(document):
        _put(root, path, pair)
    raw = mapping_layer(root.plain(), layer.source, document=root)
    return (replace(raw, checked=True, name="host's config.yaml"),) if raw.raw else ()


_Pair = tuple[Position, Node]


def _defaults(document: Node) -> list[tuple[tuple[str, ...], _Pair]]:
    top = document.value if isinstance(document.value, dict) else {}
    found = [(("checkpoint_storage",), top["checkpoint_storage"])] if "checkpoint_storage" in top else []
    _, defaults = top.get("task_container_defaults", (document.position, document))
    below = defaults.value if isinstance(defaults.value, dict) and defaults is not document else {}
    return [*found, *((path, below[name]) for name, path in _PATHS.items() if name in below)]


def _put(node: Node, path: tuple[str, ...], pair: _Pair) -> None:
    assert isinstance(node.value, dict)
    if len(path) == 1:
        node.value[path[0]] = pair
        return
    _, child = node.value.setdefault(path[0], (pair[0], Node(pair[0], {})))
    _put(child, path[1:], pair)
