"""What a person edited after submission: attributes of an experiment, and metadata of its checkpoints.

`attributes.json` is applied over the config. The controller calls `with_attributes` again before each
decision that depends on `max_slots`, `weight`, `priority` or the number of checkpoints to keep. A checkpoint
is sealed by its manifest and never changes, so its edited metadata is in `annotations.json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.codec import as_map, from_json
from detbuild.errors import ConfigError
from detbuild.store.files import alone, read_document, write_synced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig

_ATTRIBUTES: Final = "attributes.json"
_RESOURCES: Final = ("max_slots", "weight", "priority")
_KEPT: Final = ("save_experiment_best", "save_trial_best", "save_trial_latest")
_LOWEST_PRIORITY: Final = 99
_ANNOTATIONS: Final = "annotations.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """Attributes that were edited; None keeps the submitted value."""

    name: str | None = None
    description: str | None = None
    notes: str | None = None
    labels: tuple[str, ...] | None = None
    archived: bool = False
    max_slots: int | None = None  # 0: no limit
    weight: float | None = None
    priority: int | None = None  # 1..99, lower first
    save_experiment_best: int | None = None
    save_trial_best: int | None = None
    save_trial_latest: int | None = None


def read_attributes(experiment: Path) -> Attributes:
    """Read the edited attributes of the experiment in this folder.

    Raises:
        EngineError: The file is damaged.
    """
    try:
        return read_document(experiment / _ATTRIBUTES, _attributes, hint="repair it, or remove it")
    except FileNotFoundError:
        return Attributes()


def _attributes(raw: object) -> Attributes:
    found = from_json(Attributes, raw)
    try:
        _check(found)
    except ConfigError as error:
        raise ValueError(f"breaks a rule: {error}") from error
    return found


def change_attributes(experiment: Path, change: Callable[[Attributes], Attributes]) -> Attributes:
    """Apply `change` to the attributes on disk, under a lock.

    Raises:
        ConfigError: The new values break a rule.
    """
    with alone(experiment / ".attributes.lock"):
        changed = change(read_attributes(experiment))
        _check(changed)
        values = asdict(changed)
        edited = {key: value for key, value in values.items() if value is not None and value is not False}
        write_synced(experiment / _ATTRIBUTES, json.dumps(edited, indent=2).encode() + b"\n")
    return changed


def with_label(attributes: Attributes, submitted: tuple[str, ...], label: str) -> Attributes:
    labels = submitted if attributes.labels is None else attributes.labels
    return replace(attributes, labels=tuple(dict.fromkeys((*labels, label))))


def without_label(attributes: Attributes, submitted: tuple[str, ...], label: str) -> Attributes:
    labels = submitted if attributes.labels is None else attributes.labels
    return replace(attributes, labels=tuple(one for one in labels if one != label))


def with_attributes(config: ExperimentConfig, attributes: Attributes) -> ExperimentConfig:
    """Return the config with the edited attributes that affect a running experiment."""
    resources = _given(attributes, _RESOURCES)
    if "max_slots" in resources:
        resources["max_slots"] = resources["max_slots"] or None
    storage = _given(attributes, _KEPT)
    update: dict[str, object] = {}
    if resources:
        update["resources"] = config.resources.model_copy(update=resources)
    if storage:
        update["checkpoint_storage"] = config.checkpoint_storage.model_copy(update=storage)
    return config.model_copy(update=update) if update else config


def _given(attributes: Attributes, names: tuple[str, ...]) -> dict[str, object]:
    values = {name: getattr(attributes, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _check(attributes: Attributes) -> None:
    for name, value in _given(attributes, (*_RESOURCES, *_KEPT)).items():
        if not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigError(f"{name} must be 0 or more, not {value!r}")
    if attributes.priority is not None and not 1 <= attributes.priority <= _LOWEST_PRIORITY:
        raise ConfigError(f"priority must be between 1 and {_LOWEST_PRIORITY}, not {attributes.priority}")
    if attributes.name is not None and not attributes.name.strip():
        raise ConfigError("the experiment name must not be empty")


if TYPE_CHECKING:
    Metadata = Mapping[str, object]


def metadata_of(experiment: Path, uuid: str, stored: Metadata) -> Metadata:
    """Return the edited metadata of a checkpoint, or else what was `stored` with it.

    Raises:
        EngineError: The file is damaged.
    """
    found = _read(experiment).get(uuid)
    return stored if found is None else found


def change_metadata(
    experiment: Path, uuid: str, stored: Metadata, change: Callable[[Metadata], Metadata]
) -> Metadata:
    """Apply `change` to the metadata on disk, under a lock."""
    with alone(experiment / ".attributes.lock"):
        everything = _read(experiment)
        changed = dict(change(everything.get(uuid, stored)))
        text = json.dumps({**everything, uuid: changed}, indent=2)
        write_synced(experiment / _ANNOTATIONS, text.encode() + b"\n")
    return changed


def _read(experiment: Path) -> dict[str, Metadata]:
    try:
        return read_document(experiment / _ANNOTATIONS, _of_checkpoints, hint="repair it, or remove it")
    except FileNotFoundError:
        return {}


def _of_checkpoints(raw: object) -> dict[str, Metadata]:
    found: dict[str, Metadata] = {}
    for uuid, metadata in as_map(raw).items():
        if not isinstance(metadata, dict):
            raise ValueError(f"has metadata of {uuid[:40]} that are not a map")  # noqa: TRY004
        found[uuid] = metadata
    return found
