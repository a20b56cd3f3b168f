"""Config templates: named parts of configs in `$DETBUILD_HOME/templates/<name>.yaml`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError
from detbuild.store.files import file_errors, private_directory, sync_directory, write_synced

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.home import Home

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


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
        there = ", ".join(template_names(home)) or "none"
        raise ConfigError(f"there is no template {name}", hint=f"available templates: {there}") from None


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
