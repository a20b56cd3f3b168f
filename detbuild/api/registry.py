"""The model registry and the config templates of a home."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.store import registry
from detbuild.store.registry import Model, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from detbuild.api.documents import Document
    from detbuild.store.home import Home

__all__ = ["Model", "Models", "Templates", "Version", "model_document"]


@dataclass(frozen=True, slots=True)
class Models:
    """Models, whose numbered versions are checkpoints; a registered checkpoint is never garbage collected."""

    home: Home

    def create(
        self, name: str, *, description: str, metadata: Mapping[str, object], labels: Iterable[str]
    ) -> Model:
        """Add a model.

        Raises:
            ConfigError: The name exists already.
        """
        model = Model(
            name=name,
            created=time.time(),
            description=description,
            metadata=dict(metadata),
            labels=tuple(labels),
        )
        return registry.create_model(self.home, model)

    def all(self) -> tuple[Model, ...]:
        """Return all models by name."""
        return registry.models(self.home)

    def model(self, name: str) -> Model:
        """Return a model; raise ConfigError if it does not exist."""
        return registry.read_model(self.home, name)

    def change(self, name: str, change: Callable[[Model], Model]) -> Model:
        """Apply `change` to a model and return the result."""
        return registry.change_model(self.home, name, change)

    def delete(self, name: str) -> None:
        """Remove a model; its checkpoints are kept."""
        registry.delete_model(self.home, name)

    def register(self, name: str, uuid: str, *, version_name: str = "", comment: str = "") -> Version:
        """Register a checkpoint as the next version of a model; a prefix of the UUID is enough.

        Raises:
            ConfigError: The model or checkpoint does not exist, or its files were deleted.
        """
        from detbuild.checkpoint.source import register_checkpoint

        return register_checkpoint(self.home, name, uuid, name=version_name, comment=comment)

    def change_version(self, name: str, number: int, change: Callable[[Version], Version]) -> Version:
        """Apply `change` to a version and return the result."""
        return registry.change_version(self.home, name, number, change)

    def delete_version(self, name: str, number: int) -> None:
        """Remove a version; its checkpoint is kept."""
        registry.delete_version(self.home, name, number)


def model_document(model: Model) -> Document:
    """Return one element of `detbuild model list --json`."""
    document = {**asdict(model), "labels": list(model.labels), "versions": list(map(asdict, model.versions))}
    del document["last_version"]
    return document


@dataclass(frozen=True, slots=True)
class Templates:
    """Named parts of configs, for `--template`."""

    home: Home

    def names(self) -> tuple[str, ...]:
        return registry.template_names(self.home)

    def file(self, name: str) -> Path:
        """Return the path of a template, which need not exist."""
        return registry.template_file(self.home, name)

    def read(self, name: str) -> str:
        """Return the text of a template; raise ConfigError if it does not exist."""
        return registry.read_template(self.home, name)

    def write(self, name: str, file: Path, *, replace: bool = True) -> None:
        """Save a file as a template.

        Raises:
            ConfigError: The file is not a part of a config, or the template exists and is not replaced.
        """
        from detbuild.config.yaml import read_document

        if not replace and self.file(name).exists():
            raise ConfigError(
                f"template {name} already exists",
                hint=f"replace it with `detbuild template set {name} FILE`",
            )
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {file}: {error}") from error
        read_document(text, str(file))  # raises unless it is a map
        registry.write_template(self.home, name, text)

    def remove(self, name: str) -> None:
        """Remove a template; raise ConfigError if it does not exist."""
        registry.remove_template(self.home, name)
