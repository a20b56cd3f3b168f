"""What a config may say that has no effect here, none yet, or another than it seems to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.hyperparameters import Nested
from detbuild.config.storage import SharedFs
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.hyperparameters import Hyperparameter, Path

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
    """At most four warnings: ranges without a type, data that is not cached, fields without effect.

    A field that is set to its default says nothing that is not done, so it is not named.
    """
    later = _used(config, NOT_YET)
    never = _used(config, NO_MEANING_HERE)
    if isinstance(config.checkpoint_storage, SharedFs) and config.checkpoint_storage.container_path:
        never.append("checkpoint_storage.container_path")
    warnings = []
    if untyped := [".".join(path) for path in _untyped(config.hyperparameters)]:
        message = f"a map without `type` is no range, but constants: hyperparameters.{', '.join(untyped)}"
        warnings.append(Warned(message, "add `type: double`, `int`, `log` or `categorical` to search it"))
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


def _untyped(hyperparameters: Mapping[str, Hyperparameter], above: Path = ()) -> Iterator[Path]:
    """The maps of hyperparameters that have the keys of a range or of a choice."""
    for name, value in hyperparameters.items():
        if isinstance(value, Nested):
            inner = value.root.keys()
            if inner >= {"minval", "maxval"} or "vals" in inner:
                yield (*above, name)
            yield from _untyped(value.root, (*above, name))


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
