"""What a command gets from its environment, read once in `__main__`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from detbuild.engine.protocol import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    home: Path  # $DETBUILD_HOME: where experiments live
    environ: Mapping[str, str]
    connect: Callable[[], Engine]


pass_session = click.make_pass_decorator(Session)
