"""What every call needs: the home, the caller's environment, the way to the engine, and where warnings go."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from detbuild.engine.protocol import Engine
    from detbuild.events import Emit
    from detbuild.store.home import Home


def docker_engine() -> Engine:
    """Connect to the Docker Engine of the environment."""
    from detbuild.engine.docker import DockerEngine

    return DockerEngine()


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The home and the engine that a client and its handles act on."""

    path: Path  # $DETBUILD_HOME
    environ: Mapping[str, str] = field(repr=False)
    connect: Callable[[], Engine]  # called when an engine is first needed
    emit: Emit  # receives warnings and slow steps

    @cached_property
    def home(self) -> Home:
        """The home, created when it is first needed."""
        from detbuild.store.home import Home

        return Home.open(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the environment, which may hold secrets: another process has its own."""
        return {"path": self.path, "connect": self.connect, "emit": self.emit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, environ=os.environ)
