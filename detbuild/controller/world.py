"""What the controller of an experiment knows and may change; every effect goes through folder or engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.errors import EngineError
from detbuild.launch.gpus import Gpu, discover
from detbuild.launch.plan import Place, user_of
from detbuild.store.home import Home
from detbuild.store.state import ExperimentState, advance, fold
from detbuild.store.stored import Stored

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
    stored: Stored = field(init=False)
    info: EngineInfo | None = None  # what the engine said last of itself
    image: str = ""  # in the place of the header's, if that is gone
    bring_back: Callable[[tuple[str, ...]], str] = lambda _: ""  # see Keeper
    tidy: bool = False  # no container of a run that is over is left

    def __post_init__(self) -> None:
        entries = self.folder.journal()
        self.state = fold(self.folder.header(), entries)
        self.stored = Stored.of(entry.fact for entry in entries)

    @property
    def home(self) -> Home:
        return Home(self.folder.path.parent.parent, self.home_id)

    def record(self, fact: Fact) -> None:
        """Write the fact down, then believe it."""
        self.state = advance(self.state, self.folder.record(fact))
        self.stored.add(fact)

    def ask_engine(self) -> EngineInfo:
        """Ask the engine about itself.

        Raises:
            EngineError: It is away, or another one than the experiment's: what is not there is not lost then.
        """
        info, header = self.engine.info(), self.state.header
        if info.id and header.engine not in {"", info.id}:
            raise EngineError(
                f"experiment {header.id} runs on Docker Engine {header.engine} at {header.engine_at}, "
                f"and this is {info.id} of {info.name}",
                mend=f"set DOCKER_HOST to that engine and run `detbuild resume`; "
                f"when it is gone for good, remove {self.folder.path}",
            )
        self.info = info
        return info

    def place(self) -> Place:
        header = self.state.header
        user = user_of(self.info or self.ask_engine(), header.user)
        header = replace(header, image=self.image or header.image)
        return Place(home_id=self.home_id, folder=self.folder, header=header, user=user)

    def image_is_there(self) -> bool:
        """Whether the engine has the experiment's image, or one that was built anew from the same inputs."""
        header = self.state.header
        found = self.engine.image_id(header.image)
        if found is None and header.tag:
            found = self.engine.image_id(header.tag)
        self.image = found or ""
        return found is not None

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of the host as they are now."""
        return discover(self.ask_engine(), self.nvidia_smi())
