"""Templates: partial configs that experiments share, in the home's `templates/`."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.layers import Layer, read_text, text_layer
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def template_layers(home: Path, names: Sequence[str]) -> tuple[Layer, ...]:
    """Read templates into layers, highest first; the last name is the highest.

    Args:
        home: `$DETBUILD_HOME`.
        names: `NAME` for `templates/NAME.yaml` of the home, or a path that has a `/` or ends in `.yaml`.

    Raises:
        ConfigError: there is no such template, or it is not a map of fields.
    """
    return tuple(_layer(_find(home / "templates", name), name) for name in reversed(names))


def _layer(path: Path, name: str) -> Layer:
    return replace(text_layer(read_text(path, "template"), str(path)), name=f"template {name}")


def _find(directory: Path, name: str) -> Path:
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    path = directory / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in directory.glob("*.yaml")]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"create {path}, or pass a path"
        raise ConfigError(f"no template {name!r} in {directory}", hint=hint)
    return path
