"""What a command may know of the world: read once in `__main__`, passed down as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detbuild.engine.protocol import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    home: Path  # $DETBUILD_HOME: where experiments live
    environ: Mapping[str, str]
    connect: Callable[[], Engine]


pass_session = click.make_pass_decorator(Session)


def home_of(environ: Mapping[str, str]) -> Path:
    """Return `$DETBUILD_HOME`, else `$XDG_DATA_HOME/detbuild`, else `~/.local/share/detbuild`."""
    if environ.get("DETBUILD_HOME"):
        return Path(environ["DETBUILD_HOME"]).absolute()
    if environ.get("XDG_DATA_HOME"):
        return Path(environ["XDG_DATA_HOME"], "detbuild").absolute()
    return Path(environ.get("HOME") or "~").expanduser().absolute() / ".local" / "share" / "detbuild"
