"""What the controller of an experiment knows and may change; every effect goes through folder or engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.controller.book import JournaledState
from detbuild.controller.hands import EnginePool
from detbuild.controller.policies import Policy, policies_of
from detbuild.errors import ConfigError, EngineError
from detbuild.launch.plan import Place, user_of
from detbuild.launch.stock import Inventory, Limits, cpu_slots, take_inventory
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.clock import Clock
    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.launch.slots import SlotQueue
    from detbuild.launch.tickets import Kind


@dataclass(kw_only=True, slots=True)
class ControllerContext(JournaledState):
    """The books of the experiment, and the machine that it runs on."""

    engine: Engine
    config: ExperimentConfig
    home_id: str
    clock: Clock
    nvidia_smi: Callable[[], str]  # what `nvidia-smi -L` says, "" without one
    slots: SlotQueue
    limits: Callable[[], Limits] = Limits  # asked anew each time: people change them
    max_workers: int = 1  # how many long calls of the engine go on at once
    engine_pool: EnginePool = field(init=False)
    policies: tuple[Policy, ...] = field(init=False)  # that runs' output is looked through for
    info: EngineInfo | None = None  # what the engine said last of itself
    image: str = ""  # in the place of the header's, if that is gone
    restore_files: Callable[[tuple[str, ...]], str] = lambda _: ""  # the Keeper's
    containers_removed: bool = False  # no container of a run that is over is left

    def __post_init__(self) -> None:
        JournaledState.__post_init__(self)
        self.engine_pool = EnginePool(self.engine, self.max_workers)
        self.policies = policies_of(self.config)

    @property
    def home(self) -> Home:
        return Home(self.folder.path.parent.parent, self.home_id)

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
                hint=f"set DOCKER_HOST to that engine and run `detbuild resume`; "
                f"when it is gone for good, remove {self.folder.path}",
            )
        self.info = info
        return info

    def place(self) -> Place:
        header, info = self.state.header, self.info or self.ask_engine()
        header = replace(header, image=self.image or header.image)
        return Place(
            home_id=self.home_id,
            folder=self.folder,
            header=header,
            user=user_of(info, header.user),
            host_memory=info.memory,
            host_cpus=info.cpus,
        )

    def image_exists(self) -> bool:
        """Whether the engine has the experiment's image, or one that was built anew from the same inputs."""
        header = self.state.header
        found = self.engine.image_id(header.image)
        if found is None and header.tag:
            found = self.engine.image_id(header.tag)
        self.image = found or ""
        return found is not None

    def inventory(self) -> Inventory:
        """The slots of the host that the experiment's trials use, as they are now.

        Raises:
            EngineError: The engine is away, or the host's config is wrong.
        """
        gpus = self.config.resources.slots_per_trial
        info = self.ask_engine() if gpus or self.info is None else self.info  # its cores stay the same
        kind: Kind = "gpu" if gpus else "cpu"
        return take_inventory(kind, self.engine, info, self.nvidia_smi, self._limits())

    def cpu_slots(self) -> int:
        """How many CPU slots the trials of the home may use at once.

        Raises:
            EngineError: The engine is away, or the host's config is wrong.
        """
        return cpu_slots(self.info or self.ask_engine(), self._limits().cpu_trials)

    def _limits(self) -> Limits:
        """What the host's config says now; trials wait while it cannot be told."""
        try:
            return self.limits()
        except ConfigError as error:
            raise EngineError(str(error), hint=error.hint) from error
