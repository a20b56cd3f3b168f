"""What a config may say that has no effect here, or none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.storage import SharedFs
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from detbuild.config.experiment import ExperimentConfig

NOT_YET: Final = ("profiling",)
# Of a cluster, its scheduler and its web page, or of a time long gone.
NO_MEANING_HERE: Final = (
    "workspace",
    "project",
    "searcher.train_stragglers",
    "resources.resource_pool",
    "resources.is_single_node",
    "resources.native_parallel",
    "resources.agent_label",
    "environment.proxy_ports",
    "environment.pod_spec",
    "checkpoint_storage.checkpoint_path",
    "checkpoint_storage.tensorboard_path",
    "optimizations.gradient_compression",
    "optimizations.grad_updates_size_file",
    "optimizations.tensor_fusion_threshold",
    "optimizations.tensor_fusion_cycle_time",
    "optimizations.auto_tune_tensor_fusion",
    "retention_policy",
    "integrations",
    "slurm",
    "pbs",
    "security",
    "tensorboard_storage",
    "internal",
)


def warnings_for(config: ExperimentConfig) -> tuple[Warned, ...]:
    """At most three warnings: data sets that are not cached, fields without effect yet, or on one host.

    A field that is set to its default says nothing that is not done, so it is not named.
    """
    later = _used(config, NOT_YET)
    never = _used(config, NO_MEANING_HERE)
    if isinstance(config.checkpoint_storage, SharedFs) and config.checkpoint_storage.container_path:
        never.append("checkpoint_storage.container_path")
    warnings = []
    if config.data_layer is not None:
        message = "data_layer: data sets are not cached, each run reads its own data"
        warnings.append(Warned(message, "remove it; bind_mounts bring data that lies on the host"))
    if later:
        message = f"accepted, but not acted on yet: {', '.join(later)}"
        warnings.append(Warned(message, "the experiment runs as if they were absent"))
    if never:
        message = f"without meaning on one host, and ignored: {', '.join(never)}"
        warnings.append(Warned(message, "remove them, or keep them for a cluster"))
    return tuple(warnings)


def _used(config: ExperimentConfig, names: Iterable[str]) -> list[str]:
    return [name for name in names if _is_set(config, name.split("."))]


def _is_set(model: BaseModel, path: list[str]) -> bool:
    name, *rest = path
    if name not in type(model).model_fields:  # another searcher or storage than the one with this field
        return False
    value = getattr(model, name)
    if rest:
        return _is_set(value, rest)
    default: object = type(model).model_fields[name].get_default(call_default_factory=True)
    return bool(value != default)
