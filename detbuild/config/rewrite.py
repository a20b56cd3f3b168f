"""Rewrites configs, for submission or for a test of one batch, and warns of values that look like slips."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from detbuild.config.experiment import MAX_SEED
from detbuild.config.hyperparameters import Const, Log, Nested, RandomState, leaves, sample
from detbuild.config.searcher import Single
from detbuild.config.storage import SharedFs
from detbuild.events import Warned
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.hyperparameters import Hyperparameter, Leaf, Path

_WORDS: Final = (
    ("brave", "calm", "eager", "fond", "gentle", "keen", "lively", "mild", "quick", "sunny", "vivid", "wise"),
    (
        "amber",
        "azure",
        "coral",
        "golden",
        "green",
        "ivory",
        "jade",
        "olive",
        "pearl",
        "ruby",
        "silver",
        "teal",
    ),
    (
        "badger",
        "crane",
        "dolphin",
        "falcon",
        "gecko",
        "heron",
        "ibex",
        "lynx",
        "otter",
        "robin",
        "seal",
        "yak",
    ),
)
_TINY: Final = 0.1  # almost zero as an exponent
_HUGE: Final = 1e15
_MOST_SHOWN: Final = 60  # characters of a list in a hint
NOT_IMPLEMENTED: Final = ("profiling",)
# Fields for clusters, their scheduler or web page, and fields of old versions.
IGNORED_FIELDS: Final = (
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


def completed(config: ExperimentConfig, *, seed: int) -> ExperimentConfig:
    """Set the seed and the name, if the config has none.

    Args:
        config: the config as submitted.
        seed: the default seed; Determined uses the time of submission in seconds.
    """
    chosen = config.reproducibility.experiment_seed
    kept = seed % (MAX_SEED + 1) if chosen is None else chosen
    name = config.name or config.description or _pet_name(seed)
    reproducibility = config.reproducibility.model_copy(update={"experiment_seed": kept})
    return config.model_copy(update={"name": name, "reproducibility": reproducibility})


def test_mode(config: ExperimentConfig) -> ExperimentConfig:
    """Reduce to one batch and validation of one sample, without restarts or kept checkpoints."""
    one = Length("batches", 1)
    seed = config.reproducibility.experiment_seed or 0
    hparams = sample(config.hyperparameters, seed)
    keep_none = {"save_experiment_best": 0, "save_trial_best": 0, "save_trial_latest": 0}
    return config.model_copy(
        update={
            "description": f"[test-mode] {config.description or ''}".strip(),
            "scheduling_unit": 1,
            "min_validation_period": one,
            "searcher": _single(config, one),
            "hyperparameters": {
                name: Const.model_validate({"val": value}) for name, value in hparams.items()
            },
            "checkpoint_storage": config.checkpoint_storage.model_copy(update=keep_none),
            "max_restarts": 0,
        }
    )


def _single(config: ExperimentConfig, length: Length) -> Single:
    searcher = config.searcher
    return Single(
        metric=searcher.metric,
        smaller_is_better=searcher.smaller_is_better,
        source_trial_id=searcher.source_trial_id,
        source_checkpoint_uuid=searcher.source_checkpoint_uuid,
        max_length=length,
    )


def _pet_name(seed: int) -> str:
    random = RandomState(seed)
    return f"Experiment ({'-'.join(words[random.randint(0, len(words))] for words in _WORDS)})"


def warnings_for(config: ExperimentConfig) -> tuple[Warned, ...]:
    """Return warnings, grouped by kind: values that probably mean something else, fields without effect.

    Fields set to their default are not reported.
    """
    later = _used(config, NOT_IMPLEMENTED)
    never = _used(config, IGNORED_FIELDS)
    if isinstance(config.checkpoint_storage, SharedFs) and config.checkpoint_storage.container_path:
        never.append("checkpoint_storage.container_path")
    warnings = [*_exponents(config.hyperparameters), *_lists(config.hyperparameters)]
    if untyped := [".".join(path) for path in _untyped(config.hyperparameters)]:
        message = f"a map without `type` is treated as constants: hyperparameters.{', '.join(untyped)}"
        warnings.append(Warned(message, "add `type: double`, `int`, `log` or `categorical` to search it"))
    if config.data_layer is not None:
        message = "data_layer: data sets are not cached; each run reads its own data"
        warnings.append(Warned(message, "remove it; use bind_mounts for data on the host"))
    if later:
        message = f"accepted, but not implemented yet: {', '.join(later)}"
        warnings.append(Warned(message))
    if never:
        message = f"ignored, no effect on a single host: {', '.join(never)}"
        warnings.append(Warned(message, "remove them, or keep them for a cluster"))
    return tuple(warnings)


def _exponents(hyperparameters: Mapping[str, Hyperparameter]) -> Iterator[Warned]:
    """Warn of log ranges whose bounds look like values, not exponents."""
    for path, leaf in leaves(hyperparameters):
        if isinstance(leaf, Log) and _looks_like_values(leaf):
            low, high = leaf.base**leaf.minval, leaf.base**leaf.maxval
            name = f"hyperparameters.{'.'.join(path)}"
            message = f"{name}: bounds of a log range are exponents; it searches {low:.6g} to {high:.6g}"
            meant = " and ".join(
                f"`{bound}: {math.log(value, leaf.base):.4g}`"
                for bound, value in (("minval", leaf.minval), ("maxval", leaf.maxval))
            )
            yield Warned(message, f"write {meant} to search {leaf.minval:g} to {leaf.maxval:g}")


def _looks_like_values(range_: Log) -> bool:
    """Whether both bounds are in (0, 1], one is tiny, or a power is beyond any hyperparameter."""
    if range_.minval <= 0 or range_.base <= 1:
        return False
    return range_.maxval <= 1 or range_.minval < _TINY or range_.base**range_.maxval > _HUGE


def _lists(hyperparameters: Mapping[str, Hyperparameter]) -> Iterator[Warned]:
    """Warn of bare lists of different scalars, which look like choices but are one constant."""
    found = [
        (".".join(path), vals) for path, leaf in leaves(hyperparameters) if (vals := _choices(path, leaf))
    ]
    if found:
        name, vals = found[0]
        names = ", ".join(name for name, _ in found)
        message = f"a list without `type` is treated as one constant: hyperparameters.{names}"
        shown = vals if len(vals) <= _MOST_SHOWN else "[...]"
        hint = f"write `{name.rpartition('.')[2]}: {{type: categorical, vals: {shown}}}` to search its items"
        yield Warned(message, f"{hint}, or `{{type: const, val: {shown}}}` to keep the list")


def _choices(path: Path, leaf: Leaf) -> str:
    """Return the items of such a list as YAML; "" for other values and for `vals`, see `_untyped`."""
    if not isinstance(leaf, Const) or "type" in leaf.model_fields_set or path[-1] == "vals":
        return ""
    items = leaf.val if isinstance(leaf.val, list) else []
    scalars = all(isinstance(item, (str, int, float)) for item in items)
    return json.dumps(items) if scalars and 1 < len(items) == len(set(map(repr, items))) else ""


def _untyped(hyperparameters: Mapping[str, Hyperparameter], above: Path = ()) -> Iterator[Path]:
    """Yield nested maps that have the keys of a range or choice but no `type`."""
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
    if name not in type(model).model_fields:  # a field of another searcher or storage
        return False
    value = getattr(model, name)
    if rest:
        return _is_set(value, rest)
    default: object = type(model).model_fields[name].get_default(call_default_factory=True)
    return bool(value != default)
