"""What the controller of an experiment knows and may change; every effect goes through folder or engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.launch.gpus import Gpu, discover
from detbuild.launch.plan import Place, user_of
from detbuild.store.state import ExperimentState, advance, fold

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.clock import Clock
    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.journal import Fact


@dataclass(kw_only=True, slots=True)
class World:
    """`state` is never ahead of the journal on disk."""

    folder: ExperimentFolder
    engine: Engine
    config: ExperimentConfig
    home_id: str
    clock: Clock
    nvidia_smi: Callable[[], str]  # what `nvidia-smi -L` says, "" without one
    gpu_lock: Callable[[], AbstractContextManager[None]]
    state: ExperimentState = field(init=False)
    _info: EngineInfo | None = None

    def __post_init__(self) -> None:
        self.state = fold(self.folder.header(), self.folder.journal())

    def record(self, fact: Fact) -> None:
        """Write the fact down, then believe it."""
        self.state = advance(self.state, self.folder.record(fact))

    @property
    def info(self) -> EngineInfo:
        """Asked for once, when there is an engine to ask."""
        if self._info is None:
            self._info = self.engine.info()
        return self._info

    def place(self) -> Place:
        header = self.state.header
        return Place(
            home_id=self.home_id, folder=self.folder, header=header, user=user_of(self.info, header.user)
        )

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of the host as they are now."""
        return discover(self.engine.info(), self.nvidia_smi())
