"""Templates: parts of configs under names, as files `$DETBUILD_HOME/templates/<name>.yaml`."""

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
    """Where the template of this name is, or would be.

    Raises:
        ConfigError: It is no name for a template.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:60]!r} is no name for a template", hint="use letters, digits, `_`, `-` and `.`"
        )
    return home.path / "templates" / f"{name}.yaml"


def template_names(home: Home) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (home.path / "templates").glob("[!.]*.yaml")))


def read_template(home: Home, name: str) -> str:
    """The text of a template.

    Raises:
        ConfigError: There is no such template.
    """
    file = template_file(home, name)
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(template_names(home)) or "none"
        raise ConfigError(f"there is no template {name}", hint=f"templates: {there}") from None


def write_template(home: Home, name: str, text: str) -> None:
    """Keep a template under this name, in the place of an older one."""
    file = template_file(home, name)
    with file_errors(file):
        private_directory(file.parent)
    write_synced(file, text.encode())


def remove_template(home: Home, name: str) -> None:
    """Raise ConfigError when there is no such template."""
    read_template(home, name)
    file = template_file(home, name)
    with file_errors(file):
        file.unlink(missing_ok=True)
        sync_directory(file.parent)
