"""The model registry and the config templates of a home.

A model is one file in `$DETBUILD_HOME/models/` with the UUIDs of its checkpoints; a registered checkpoint is
kept: every removal of checkpoints checks `registered` first. A template is a named part of a config in
`$DETBUILD_HOME/templates/<name>.yaml`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from detbuild import codec
from detbuild.errors import ConfigError, EngineError
from detbuild.store.files import alone, file_errors, private_directory, sync_directory, write_synced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from detbuild.store.home import Home

_LONGEST_NAME = 200  # bytes of a file name, which leaves space for its suffix and for a draft's name
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    version: int
    checkpoint: str  # uuid
    created: float  # seconds since the epoch
    name: str = ""
    comment: str = ""
    notes: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    name: str
    created: float  # seconds since the epoch
    description: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    archived: bool = False
    versions: tuple[Version, ...] = ()
    last_version: int = 0  # the highest number assigned: numbers of deleted versions are not reused

    def version(self, number: int) -> Version:
        """Return a version; raise ConfigError if it does not exist."""
        for one in self.versions:
            if one.version == number:
                return one
        there = ", ".join(str(one.version) for one in self.versions) or "none"
        raise ConfigError(f"model {self.name} has no version {number}", hint=f"available versions: {there}")


def create_model(home: Home, model: Model) -> Model:
    """Add a model to the registry.

    Raises:
        ConfigError: The name already exists or is not valid.
    """
    file = _file(home, model.name)
    if not model.name.strip() or len(file.name) > _LONGEST_NAME:
        raise ConfigError(f"not a valid model name: {model.name[:60]!r}", hint="use a short name")
    with file_errors(file.parent):
        private_directory(file.parent)
    with alone(_lock(home)):
        if file.exists():
            raise ConfigError(f"model {model.name} already exists", hint="see `detbuild model list`")
        _write(file, model)
    return model


def read_model(home: Home, name: str) -> Model:
    """Read a model; raise ConfigError if it does not exist, EngineError if its file is damaged."""
    return _read(_file(home, name), name)


def models(home: Home) -> tuple[Model, ...]:
    """Return all models, sorted by name."""
    found = (_read(file, file.stem) for file in (home.path / "models").glob("[!.]*.json"))
    return tuple(sorted(found, key=lambda model: model.name))


def change_model(home: Home, name: str, change: Callable[[Model], Model]) -> Model:
    """Apply `change` to a model on disk, under a lock."""
    read_model(home, name)
    with alone(_lock(home)):
        changed = change(read_model(home, name))
        _write(_file(home, name), changed)
    return changed


def delete_model(home: Home, name: str) -> None:
    """Remove a model from the registry, but not its checkpoints."""
    read_model(home, name)
    file = _file(home, name)
    with alone(_lock(home)), file_errors(file):
        file.unlink(missing_ok=True)
        sync_directory(file.parent)


def register(home: Home, name: str, version: Version) -> Version:
    """Add a version with the next number of the model; `version.version` is ignored."""

    def add(model: Model) -> Model:
        number = max((model.last_version, *(one.version for one in model.versions))) + 1
        added = replace(version, version=number)
        return replace(model, versions=(*model.versions, added), last_version=number)

    return change_model(home, name, add).versions[-1]


def change_version(home: Home, name: str, number: int, change: Callable[[Version], Version]) -> Version:
    """Apply `change` to one version of a model on disk."""

    def put(model: Model) -> Model:
        model.version(number)
        versions = tuple(change(one) if one.version == number else one for one in model.versions)
        return replace(model, versions=versions)

    return change_model(home, name, put).version(number)


def delete_version(home: Home, name: str, number: int) -> None:
    """Remove one version of a model."""

    def drop(model: Model) -> Model:
        model.version(number)
        return replace(model, versions=tuple(one for one in model.versions if one.version != number))

    change_model(home, name, drop)


def registered(home: Home) -> Mapping[str, tuple[str, ...]]:
    """Return the UUIDs of all registered checkpoints, each with its `model:version` names."""
    found: dict[str, tuple[str, ...]] = {}
    for model in models(home):
        for one in model.versions:
            found[one.checkpoint] = (*found.get(one.checkpoint, ()), f"{model.name}:{one.version}")
    return found


def _file(home: Home, name: str) -> Path:
    written = quote(name, safe=" ")  # a name may contain any character, even a slash
    if written.startswith("."):
        written = f"%2E{written[1:]}"  # hidden files are not models
    return home.path / "models" / f"{written}.json"


def _lock(home: Home) -> Path:
    return home.path / "models" / ".lock"


def _write(file: Path, model: Model) -> None:
    write_synced(file, json.dumps(asdict(model), indent=2).encode() + b"\n")


def _read(file: Path, name: str) -> Model:
    try:
        return codec.from_json(Model, codec.parsed(file.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"there is no model {name}", hint="see `detbuild model list`") from None
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {file}: {error}", hint="repair it, or move it aside") from error


def template_file(home: Home, name: str) -> Path:
    """Return the path of a template, which need not exist.

    Raises:
        ConfigError: The name is not valid.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"not a valid template name: {name[:60]!r}", hint="use letters, digits, `_`, `-` and `.`"
        )
    return home.path / "templates" / f"{name}.yaml"


def template_names(home: Home) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (home.path / "templates").glob("[!.]*.yaml")))


def read_template(home: Home, name: str) -> str:
    """Read the text of a template.

    Raises:
        ConfigError: The template does not exist.
    """
    file = template_file(home, name)
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        from detbuild.config.sources import no_template  # noqa: PLC0415  (imports pydantic)

        raise no_template(file.parent, name) from None


def write_template(home: Home, name: str, text: str) -> None:
    """Save a template, replacing one of the same name."""
    file = template_file(home, name)
    with file_errors(file):
        private_directory(file.parent)
    write_synced(file, text.encode())


def remove_template(home: Home, name: str) -> None:
    """Remove a template; raise ConfigError if it does not exist."""
    read_template(home, name)
    file = template_file(home, name)
    with file_errors(file):
        file.unlink(missing_ok=True)
        sync_directory(file.parent)
