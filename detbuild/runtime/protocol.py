"""The interface to where runs run: one module for each runtime, such as a container engine or a cluster.

A run is created under a fixed name and journaled before it is started, so a controller that died in between
finds it again, and no run is made twice or started twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.yaml import KeyPath
    from detbuild.engine.protocol import Device, Mount
    from detbuild.events import Warned
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._contract.run_info import RunInfo

Signal = Literal["SIGTERM", "SIGKILL"]


class Phase(Enum):
    CREATED = "created"
    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"


class Reason(Enum):
    """Why a run has ended or does not start, where its runtime knows."""

    NONE = ""
    OUT_OF_MEMORY = "out of memory"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    UNSCHEDULABLE = "unschedulable"
    IMAGE_MISSING = "image missing"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class RunKey:
    """The identity of a run."""

    home_id: str
    experiment_id: int
    trial_id: int
    run: int

    @property
    def name(self) -> str:
        """The name under which a runtime has it, unique on the host."""
        return f"detbuild-{self.home_id}-{self.experiment_id}-{self.trial_id}-{self.run}"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The folders of a run, as it sees them."""

    run_dir: str
    context_dir: str
    checkpoint_dir: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """The slots that a run needs."""

    key: RunKey
    user: str  # UID
    slots: int  # on each host; 0 for one CPU slot
    priority: int
    weight: float
    max_slots: int | None = None  # of all runs of the experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """A run to create."""

    key: RunKey
    info: RunInfo  # what the harness is told; its file is in the run's folder
    image: str  # its ID
    user: str  # uid:gid of the submitter
    hosts: int = 1
    slots: int = 0  # on each host
    gpus: tuple[str, ...] = ()  # IDs, as placed
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()  # files in, folders out
    memory: int | None = None  # bytes
    cpus: float | None = None  # cores
    shm_size: int = 4 << 30  # bytes
    devices: tuple[Device, ...] = ()
    ports: tuple[int, ...] = ()
    network: str = "bridge"
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only_root: bool = False
    scratch: tuple[str, ...] = ()  # writable directories of a read-only root
    weight: float = 1.0  # share of the host's slots
    grace: int = 3600  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Placement:
    """The slots of a run."""

    gpus: tuple[str, ...] = ()
    created: str = ""  # the runtime's ID of the run, if an earlier controller created it


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing can be done yet."""

    why: str
    blocks_others: bool = True  # the trials after it would wait for the same
    retry_in: float = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Refused:
    """The runtime works, and does not create or start the run."""

    error: EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A run as its runtime sees it."""

    phase: Phase
    reason: Reason = Reason.NONE
    message: str = ""  # in the runtime's words
    exit_code: int | None = None  # 128 + n for signal n; None if unknown
    memory: int = 0  # limit in bytes; 0 for none, or unknown
    host_memory: int = 0  # bytes; 0 if unknown


def require_one_host(spec: RunSpec) -> None:
    """Raise EngineError if a run needs more hosts than a runtime of one host has."""
    if spec.hosts > 1:
        raise EngineError(f"{spec.key.name} needs {spec.hosts} hosts, but this runtime has one")


class Runtime(Protocol):
    """Methods raise EngineError while the runtime is unavailable."""

    @property
    def kind(self) -> Literal["container", "process"]:
        """What a run is, for messages; process 1 of a container ignores signals without a handler."""

    @property
    def observe_interval(self) -> float:
        """Seconds between two observations of a run; 0 where they cost nothing."""

    def check(self, config: ExperimentConfig, place: Callable[[KeyPath], str]) -> tuple[Warned, ...]:
        """Return warnings about a config; raise ConfigError or EngineError if it can never run here."""

    def paths(self, config: ExperimentConfig, folder: ExperimentFolder, key: RunKey) -> RunPaths: ...

    def render(self, spec: RunSpec) -> object:
        """Return what `create` sends."""

    def place(self, demand: Demand) -> AbstractContextManager[Placement | Waiting]:
        """Allocate slots to a run that is created in the block."""

    def create(self, spec: RunSpec) -> str | Waiting | Refused:
        """Create a run without starting it; return its ID in the runtime. A second call changes nothing."""

    def start(self, key: RunKey) -> bool | Waiting | Refused:
        """Start a created run, once; return False while it starts, to be called again."""

    def observe(self, key: RunKey) -> Observation: ...

    def signal(self, key: RunKey, signal: Signal) -> None:
        """Send a signal unless the run has ended; a second SIGKILL may use stronger means."""

    def output_tail(self, key: RunKey, lines: int) -> tuple[str, ...]:
        """Return the last lines of output outside the run's folder."""

    def remove(self, home_id: str, experiment_id: int, *, keep: Collection[RunKey] = ()) -> None:
        """Remove all runs of an experiment but those to keep."""

    def close(self) -> None: ...
