"""`Model` and `ModelVersion`: the registry, stored as files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from detbuild.sdk import host
from detbuild.sdk.checkpoint import Checkpoint
from detbuild.sdk.enums import ModelSortBy, OrderBy
from determined.experimental._say import note_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from detbuild.api import registry


class ModelVersion:
    """A registered checkpoint, from `model.get_version()`.

    Attributes:
        model_name: Name of its model.
        model_version: Its number, from 1.
        name, comment, notes, metadata: Set by users.
        creation_time: When it was registered, in UTC.
    """

    def __init__(self, model_name: str, version: registry.Version) -> None:
        self.model_name = model_name
        self._take(version)

    def _take(self, version: registry.Version) -> None:
        self._checkpoint = version.checkpoint
        self.model_version = version.version
        self.name = version.name
        self.comment = version.comment
        self.notes = version.notes
        self.metadata: Mapping[str, Any] = dict(version.metadata)
        self.creation_time = datetime.fromtimestamp(version.created, timezone.utc)

    @property
    def checkpoint(self) -> Checkpoint:
        """The registered checkpoint.

        Raises:
            NotFound: Its experiment was deleted.
        """
        return get_checkpoint(self._checkpoint)

    def set_name(self, name: str) -> None:
        self._change(lambda version: replace(version, name=name))

    def set_notes(self, notes: str) -> None:
        self._change(lambda version: replace(version, notes=notes))

    def delete(self) -> None:
        """Remove it from the registry; the checkpoint is kept."""
        with host.found():
            host.client().models.delete_version(self.model_name, self.model_version)

    def _change(self, change: Callable[[registry.Version], registry.Version]) -> None:
        with host.found():
            self._take(host.client().models.change_version(self.model_name, self.model_version, change))

    def __repr__(self) -> str:
        return f"ModelVersion(model_name={self.model_name!r}, model_version={self.model_version})"


class Model:
    """A model in the registry, from `client.create_model` or `client.get_model`.

    Attributes:
        name: Its unique name; also its `model_id`, since models have no numbers.
        description, metadata, labels, archived: Set by users.
        creation_time: In UTC.
    """

    def __init__(self, model: registry.Model) -> None:
        self._take(model)

    def _take(self, model: registry.Model) -> None:
        self._model = model
        self.name = model.name
        self.description = model.description
        self.metadata: Mapping[str, Any] = dict(model.metadata)
        self.labels = list(model.labels)
        self.archived = model.archived
        self.creation_time = datetime.fromtimestamp(model.created, timezone.utc)

    @property
    def model_id(self) -> str:
        return self.name

    def reload(self) -> None:
        """Read everything again."""
        self._take(_read(self.name))

    def get_version(self, version: int = -1) -> ModelVersion | None:
        """Return a version by its number; by default the newest, or None without any.

        Raises:
            NotFound: The version does not exist.
        """
        model = _read(self.name)
        if version == -1:
            return ModelVersion(self.name, model.versions[-1]) if model.versions else None
        with host.found():
            return ModelVersion(self.name, model.version(version))

    def list_versions(self, order_by: OrderBy = OrderBy.DESC) -> list[ModelVersion]:
        """Return all versions by number, the newest first."""
        found = [ModelVersion(self.name, one) for one in _read(self.name).versions]
        return found[::-1] if order_by is OrderBy.DESC else found

    def get_versions(self, order_by: OrderBy = OrderBy.DESC) -> list[ModelVersion]:
        """The same under Determined's older name."""
        return self.list_versions(order_by)

    def register_version(self, checkpoint_uuid: str) -> ModelVersion:
        """Register a checkpoint under the next number, which protects it from deletion.

        Raises:
            NotFound: The checkpoint does not exist, or was deleted.
        """
        with host.found():
            return ModelVersion(self.name, host.client().models.register(self.name, checkpoint_uuid))

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        self._change(lambda model: replace(model, metadata={**model.metadata, **metadata}))

    def remove_metadata(self, keys: Iterable[str]) -> None:
        gone = set(keys)
        self._change(
            lambda model: replace(
                model, metadata={key: value for key, value in model.metadata.items() if key not in gone}
            )
        )

    def set_labels(self, labels: Iterable[str]) -> None:
        given = tuple(dict.fromkeys(labels))
        self._change(lambda model: replace(model, labels=given))

    def set_description(self, description: str) -> None:
        self._change(lambda model: replace(model, description=description))

    def archive(self) -> None:
        self._change(lambda model: replace(model, archived=True))

    def unarchive(self) -> None:
        self._change(lambda model: replace(model, archived=False))

    def move_to_workspace(self, workspace_name: str) -> None:
        """Log that this has no effect: there are no workspaces."""
        note_ignored("move_to_workspace", workspace_name, why="there are no workspaces here")

    def delete(self) -> None:
        """Remove it from the registry; its checkpoints are kept."""
        with host.found():
            host.client().models.delete(self.name)

    def _change(self, change: Callable[[registry.Model], registry.Model]) -> None:
        with host.found():
            self._take(host.client().models.change(self.name, change))

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, metadata={dict(self.metadata)!r})"


def create_model(
    name: str,
    description: str | None = "",
    metadata: Mapping[str, Any] | None = None,
    labels: Iterable[str] | None = None,
    workspace_name: str | None = None,
) -> Model:
    """Add a new model to the registry.

    Args:
        name: Unique name.
        description: Any text.
        metadata: JSON-serializable values.
        labels: Any texts.
        workspace_name: Has no effect.

    Raises:
        ConfigError: The name exists already.
    """
    note_ignored("workspace_name", workspace_name, why="there are no workspaces here")
    with host.explained():
        model = host.client().models.create(
            name, description=description or "", metadata=metadata or {}, labels=labels or ()
        )
        return Model(model)


def get_model(identifier: str | int) -> Model:
    """Return a model by its name; models have no numbers.

    Raises:
        NotFound: It does not exist.
    """
    return Model(_read(str(identifier)))


def list_models(
    sort_by: ModelSortBy = ModelSortBy.NAME,
    order_by: OrderBy = OrderBy.ASC,
    name: str | None = None,
    description: str | None = None,
) -> list[Model]:
    """Return all models.

    Args:
        sort_by: Field to sort by.
        order_by: Ascending or descending.
        name: Only those with this in their names, ignoring case.
        description: Only those with this in their descriptions, ignoring case.
    """
    with host.explained():
        found = host.client().models.all()
    wanted = [
        model
        for model in found
        if (name or "").lower() in model.name.lower()
        and (description or "").lower() in model.description.lower()
    ]
    ranked = sorted(wanted, key=lambda model: _field(model, sort_by), reverse=order_by is OrderBy.DESC)
    return [Model(model) for model in ranked]


def _field(model: registry.Model, sort_by: ModelSortBy) -> tuple[float, str]:
    match sort_by:
        case ModelSortBy.DESCRIPTION:
            return (0, model.description)
        case ModelSortBy.CREATION_TIME:
            return (model.created, model.name)
        case ModelSortBy.LAST_UPDATED_TIME:
            return (max((model.created, *(one.created for one in model.versions))), model.name)
        case ModelSortBy.NUM_VERSIONS:
            return (len(model.versions), model.name)
        case _:
            return (0, model.name)


def get_model_labels() -> list[str]:
    """Return the labels of all models, the most frequent first."""
    counted = Counter(label for model in list_models() for label in model.labels)
    return [label for label, _ in counted.most_common()]


def get_checkpoint(uuid: str) -> Checkpoint:
    """Return a checkpoint by its UUID or a unique prefix of it.

    Raises:
        NotFound: There is none, or several.
    """
    with host.found():
        return Checkpoint(host.client().checkpoint(uuid))


def _read(name: str) -> registry.Model:
    with host.found():
        return host.client().models.model(name)
