"""Merges one config over another, by the rules of Determined's `master/pkg/schemas/merge.go` at v0.38.1.

Maps merge key by key, and the higher list replaces the lower one; the exceptions are in `_RULES`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Final

from detbuild.config.environment import KINDS
from detbuild.config.parts import Part, changed

Rule = Callable[[Part, Part], Part]

_AZURE: Final = ("connection_string", "account_url", "credential")
_SEARCHER: Final = frozenset(
    {"name", "metric", "smaller_is_better", "source_trial_id", "source_checkpoint_uuid"}
)
_STORAGE: Final = frozenset({"type", "save_experiment_best", "save_trial_best", "save_trial_latest"})
# The merge keys of lists in a Kubernetes pod spec; those of all other lists are `name`.
_POD_KEYS: Final = {
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}


def merge(higher: Part, lower: Part) -> Part:
    """Merge two unchecked configs; the higher value wins where no rule fits."""
    return _maps(uniform(higher), uniform(lower), _RULES)


def uniform(config: Part) -> Part:
    """Expand short forms so that they merge: one image for all devices, devices as text."""
    for path, change in _LONG_FORMS:
        config = changed(config, path, change)
    return config


def _recursive(higher: Part, lower: Part) -> Part:
    return _maps(higher, lower, {})


def _maps(higher: Part, lower: Part, rules: Mapping[str, object]) -> Part:
    if higher.map is None or lower.map is None:
        return higher
    merged = {**lower.map, **higher.map}
    for key in higher.map.keys() & lower.map.keys():
        merged[key] = _by(rules.get(key))(higher.map[key], lower.map[key])
    return higher.with_map(merged)


def _by(rule: object) -> Rule:
    if isinstance(rule, dict):
        return lambda higher, lower: _maps(higher, lower, rule)
    return rule if callable(rule) else _recursive


def _replace(higher: Part, lower: Part) -> Part:  # noqa: ARG001  (signature of a rule)
    return higher


def _concatenate(higher: Part, lower: Part) -> Part:
    """Concatenate the lists, lower first, so that the higher source's variables win."""
    if higher.items is None or lower.items is None:
        return higher
    return Part((*lower.items, *higher.items), higher.origin)


def _union(identity: Callable[[Part], object]) -> Rule:
    """Append the items of the lower list whose identity is new."""

    def rule(higher: Part, lower: Part) -> Part:
        if higher.items is None or lower.items is None:
            return higher
        seen = [identity(part) for part in higher.items]
        new = (part for part in lower.items if identity(part) not in seen)
        return Part((*higher.items, *new), higher.origin)

    return rule


def _container_path(part: Part) -> object:
    """Return the path of a mount or device in the container."""
    path = part.scalar("container_path")
    return posixpath.normpath(path) if isinstance(path, str) else part


def _port(part: Part) -> object:
    return part.scalar("proxy_port") or part


def _policy(part: Part) -> object:
    name = part.scalar("name")
    return name if name is not None else (part.scalar("action"), part.scalar("pattern"))


def _if_same_kind(key: str, common: frozenset[str], same: Rule) -> Rule:
    """Merge `common` fields always, and the others only if both sources have the same kind."""

    def rule(higher: Part, lower: Part) -> Part:
        above, below = higher.scalar(key), lower.scalar(key)
        if above is None or below is None or above == below or lower.map is None:
            return same(higher, lower)
        kept = {name: part for name, part in lower.map.items() if name in common}
        return same(higher, lower.with_map(kept))

    return rule


def _searcher(higher: Part, lower: Part) -> Part:
    return _maps(higher, lower, dict.fromkeys(("max_length", "budget", "length_per_round"), _replace))


def _storage(higher: Part, lower: Part) -> Part:
    """Merge storages without mixing the credentials of two sources."""
    if higher.map is not None and lower.map is not None and not higher.map.keys().isdisjoint(_AZURE):
        lower = lower.with_map({key: part for key, part in lower.map.items() if key not in _AZURE})
    return _recursive(higher, lower)


def _hyperparameters(higher: Part, lower: Part) -> Part:
    """Merge nested hyperparameters; any other one is replaced as a whole."""
    if not (_nested(higher) and _nested(lower)) or higher.map is None or lower.map is None:
        return higher
    both = higher.map.keys() & lower.map.keys()
    merged = {key: _hyperparameters(higher.map[key], lower.map[key]) for key in both}
    return higher.with_map({**lower.map, **higher.map, **merged})


def _nested(part: Part) -> bool:
    return part.map is not None and "type" not in part.map


def _all_hyperparameters(higher: Part, lower: Part) -> Part:
    # At the top, `type` is a name like any other.
    return _maps(higher, lower, dict.fromkeys(higher.map or (), _hyperparameters))


def _pod(higher: Part, lower: Part, name: str = "") -> Part:
    """Merge as a Kubernetes strategic merge patch: list items merge by their key."""
    if higher.map is not None and lower.map is not None:
        both = higher.map.keys() & lower.map.keys()
        merged = {key: _pod(higher.map[key], lower.map[key], key) for key in both}
        return higher.with_map({**lower.map, **higher.map, **merged})
    key = _POD_KEYS.get(name, "name")
    above, below = _keyed(higher, key), _keyed(lower, key)
    if above is None or below is None:
        return higher
    merged_items = {**below, **above}
    for same in above.keys() & below.keys():
        merged_items[same] = _pod(above[same], below[same])
    return Part(tuple(merged_items.values()), higher.origin)


def _keyed(part: Part, key: str) -> dict[object, Part] | None:
    items = part.items or ()
    keyed = {item.scalar(key): item for item in items}
    return None if part.items is None or None in keyed or len(keyed) < len(items) else keyed


def _for_each_kind(part: Part) -> Part:
    if part.map is None:
        return part.with_map(dict.fromkeys(KINDS, part))
    if "gpu" in part.map and "cuda" not in part.map:
        return part.with_map({("cuda" if key == "gpu" else key): item for key, item in part.map.items()})
    return part


def _devices(part: Part) -> Part:
    return part if part.items is None else Part(tuple(map(_device, part.items)), part.origin)


def _device(part: Part) -> Part:
    names = ("host_path", "container_path", "mode")
    pieces = part.value.split(":") if isinstance(part.value, str) else []
    if len(pieces) not in {2, 3}:
        return part
    return part.with_map({n: Part(piece, part.origin) for n, piece in zip(names, pieces, strict=False)})


_LONG_FORMS: Final = (
    (("environment", "image"), _for_each_kind),
    (("environment", "environment_variables"), _for_each_kind),
    (("resources", "devices"), _devices),
)
_RULES: Final[Mapping[str, object]] = {
    "labels": _union(Part.plain),
    "bind_mounts": _union(_container_path),
    "resources": {"devices": _union(_container_path)},
    "environment": {
        "environment_variables": dict.fromkeys(KINDS, _concatenate),
        "proxy_ports": _union(_port),
        "registry_auth": _replace,  # as a whole: a password must not be sent to another registry
        "pod_spec": _pod,
    },
    "log_policies": _union(_policy),
    "hyperparameters": _all_hyperparameters,
    "searcher": _if_same_kind("name", _SEARCHER, _searcher),
    "checkpoint_storage": _if_same_kind("type", _STORAGE, _storage),
    "min_validation_period": _replace,
    "min_checkpoint_period": _replace,
    "slurm": {"sbatch_args": _concatenate},
    "pbs": {"pbsbatch_args": _concatenate},
}
