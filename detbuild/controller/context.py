"""The context of a controller: its experiment, engine and host limits.

Slow engine calls run in parallel, so that no trial waits for the call of another.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.controller.policies import Policy, policies_of
from detbuild.controller.state import JournaledState
from detbuild.errors import ConfigError, EngineError
from detbuild.runtime.plan import Place, user_of
from detbuild.runtime.slot_queue import Inventory, Limits, cpu_slots, take_inventory
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.retry import Clock
    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.runtime.slot_queue import SlotQueue
    from detbuild.runtime.slot_requests import Kind

AT_ONCE = 8  # more gain nothing: the engine serializes calls itself


@dataclass(kw_only=True, slots=True)
class ControllerContext(JournaledState):
    """The journaled state of an experiment, and the host that it runs on."""

    engine: Engine
    config: ExperimentConfig
    home_id: str
    clock: Clock
    nvidia_smi: Callable[[], str]  # output of `nvidia-smi -L`, or ""
    slots: SlotQueue
    limits: Callable[[], Limits] = Limits  # read each time: users change them
    max_workers: int = 1  # slow engine calls in parallel
    engine_pool: EnginePool = field(init=False)
    policies: tuple[Policy, ...] = field(init=False)  # to search the output of runs for
    info: EngineInfo | None = None  # the engine's last answer
    image: str = ""  # replaces the header's, if that was removed
    restore_files: Callable[[tuple[str, ...]], str] = lambda _: ""  # set by the controller
    containers_removed: bool = False  # those of all ended runs

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
            EngineError: It is unavailable, or not the experiment's: then missing containers are not lost.
        """
        info, header = self.engine.info(), self.state.header
        if info.id and header.engine not in {"", info.id}:
            raise EngineError(
                f"experiment {header.id} runs on Docker Engine {header.engine} at {header.engine_at}, "
                f"but this is {info.id} of {info.name}",
                hint=f"set DOCKER_HOST to that engine and run `detbuild resume`; "
                f"if it was removed permanently, delete {self.folder.path}",
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
        """Whether the engine has the experiment's image, or one rebuilt from the same inputs."""
        header = self.state.header
        found = self.engine.image_id(header.image)
        if found is None and header.tag:
            found = self.engine.image_id(header.tag)
        self.image = found or ""
        return found is not None

    def inventory(self) -> Inventory:
        """Return the host's slots of the kind that the trials use.

        Raises:
            EngineError: The engine is unavailable, or the host's config is invalid.
        """
        gpus = self.config.resources.slots_per_trial
        info = self.ask_engine() if gpus or self.info is None else self.info  # its cores stay the same
        kind: Kind = "gpu" if gpus else "cpu"
        return take_inventory(kind, self.engine, info, self.nvidia_smi, self._limits())

    def cpu_slots(self) -> int:
        """Return how many CPU slots the trials of the home may use at once.

        Raises:
            EngineError: The engine is unavailable, or the host's config is invalid.
        """
        return cpu_slots(self.info or self.ask_engine(), self._limits().cpu_trials)

    def _limits(self) -> Limits:
        """Read the host's config; trials wait while it is invalid."""
        try:
            return self.limits()
        except ConfigError as error:
            raise EngineError(str(error), hint=error.hint) from error


class EnginePool:
    """A thread pool; with one worker, calls run in the caller's thread."""

    def __init__(self, engine: Engine, max_workers: int = 1) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="engine") if max_workers > 1 else None

    def start(self, container: str) -> Future[None]:
        return self._do(self._engine.start, container)

    def remove(self, container: str) -> Future[None]:
        return self._do(self._engine.remove, container)

    def _do(self, call: Callable[[str], None], container: str) -> Future[None]:
        if self._pool is not None:
            return self._pool.submit(call, container)
        call(container)
        done: Future[None] = Future()
        done.set_result(None)
        return done
