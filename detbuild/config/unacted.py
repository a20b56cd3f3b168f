"""What a config may say that has no effect here, none yet, or another than it seems to have."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from detbuild.config.hyperparameters import Const, Log, Nested, leaves
from detbuild.config.storage import SharedFs
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.hyperparameters import Hyperparameter, Leaf, Path

_TINY: Final = 0.1  # as an exponent, next to none
_HUGE: Final = 1e15
_MOST_SHOWN: Final = 60  # characters of a list in a hint

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
    """At most one warning a kind: values that likely mean something else, and fields without effect.

    A field that is set to its default says nothing that is not done, so it is not named.
    """
    later = _used(config, NOT_YET)
    never = _used(config, NO_MEANING_HERE)
    if isinstance(config.checkpoint_storage, SharedFs) and config.checkpoint_storage.container_path:
        never.append("checkpoint_storage.container_path")
    warnings = [*_exponents(config.hyperparameters), *_lists(config.hyperparameters)]
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


def _exponents(hyperparameters: Mapping[str, Hyperparameter]) -> Iterator[Warned]:
    """Ranges of type log whose bounds look like values: they are exponents of the base."""
    for path, leaf in leaves(hyperparameters):
        if isinstance(leaf, Log) and _looks_like_values(leaf):
            low, high = leaf.base**leaf.minval, leaf.base**leaf.maxval
            name = f"hyperparameters.{'.'.join(path)}"
            message = f"{name}: bounds of a log range are exponents: it searches {low:.6g} to {high:.6g}"
            meant = " and ".join(
                f"`{bound}: {math.log(value, leaf.base):.4g}`"
                for bound, value in (("minval", leaf.minval), ("maxval", leaf.maxval))
            )
            yield Warned(message, f"write {meant} to search {leaf.minval:g} to {leaf.maxval:g}")


def _looks_like_values(range_: Log) -> bool:
    """Both bounds in (0, 1], a tiny positive one, or a power beyond any hyperparameter."""
    if range_.minval <= 0 or range_.base <= 1:
        return False
    return range_.maxval <= 1 or range_.minval < _TINY or range_.base**range_.maxval > _HUGE


def _lists(hyperparameters: Mapping[str, Hyperparameter]) -> Iterator[Warned]:
    """Bare lists of different scalars: they read as choices, and are one value."""
    found = [
        (".".join(path), vals) for path, leaf in leaves(hyperparameters) if (vals := _choices(path, leaf))
    ]
    if found:
        name, vals = found[0]
        message = (
            f"a list without `type` is one constant: hyperparameters.{', '.join(name for name, _ in found)}"
        )
        shown = vals if len(vals) <= _MOST_SHOWN else "[...]"
        hint = f"write `{name.rpartition('.')[2]}: {{type: categorical, vals: {shown}}}` to search its items"
        yield Warned(message, f"{hint}, or `{{type: const, val: {shown}}}` to keep the list")


def _choices(path: Path, leaf: Leaf) -> str:
    """The items of such a list, as YAML; "" for anything else, and for `vals`, which has its own warning."""
    if not isinstance(leaf, Const) or "type" in leaf.model_fields_set or path[-1] == "vals":
        return ""
    items = leaf.val if isinstance(leaf.val, list) else []
    scalars = all(isinstance(item, (str, int, float)) for item in items)
    return json.dumps(items) if scalars and 1 < len(items) == len(set(map(repr, items))) else ""


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
