"""Runs trials as containers of a Docker Engine; slots, labels and removals are its own affair."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from detbuild.engine.protocol import ContainerSpec
from detbuild.errors import ConfigError, EngineError
from detbuild.runtime.gpus import check_host, driver_of, won
from detbuild.runtime.labels import experiment_labels, gpus_of, run_labels
from detbuild.runtime.limits import cpu_limit, limit_warnings, memory_limit
from detbuild.runtime.protocol import (
    Observation,
    Phase,
    Placement,
    Reason,
    Refused,
    RunPaths,
    Waiting,
    require_one_host,
)
from detbuild.runtime.slot_queue import (
    BEHIND,
    Limits,
    SlotQueue,
    cpu_slots,
    host_limits,
    slot_request,
    take_inventory,
)
from detbuild.runtime.slot_requests import lock_directory
from detbuild.store.experiment_dir import WORK_DIR, checkpoint_storage
from determined._contract.run_info import CONTAINER_RUN_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.yaml import KeyPath
    from detbuild.engine.protocol import ContainerState, Engine, EngineInfo
    from detbuild.events import Warned
    from detbuild.runtime.protocol import Demand, RunKey, RunSpec, Signal
    from detbuild.runtime.slot_queue import Inventory
    from detbuild.runtime.slot_requests import Kind
    from detbuild.store.experiment_dir import ExperimentFolder, Header

_OBSERVE_INTERVAL: Final = 1.0  # seconds
MAX_WORKERS: Final = 8  # more gain nothing: the engine serializes calls itself


def container_spec(
    spec: RunSpec, info: EngineInfo | None = None, *, image: str = "", home_cpu_slots: int = 1
) -> ContainerSpec:
    """Return the container of a run.

    Args:
        spec: The run.
        info: The engine, which bounds the limits; None if it is unknown, for a dry run.
        image: Replaces the image of the spec, e.g. rebuilt from the same inputs.
        home_cpu_slots: CPU slots of the home.
    """
    return ContainerSpec(
        name=spec.key.name,
        image=image or spec.image,
        env=spec.env,
        user=container_user(info, spec.user),
        gpus=spec.gpus,
        gpu_driver=driver_of(spec.gpus[0]) if spec.gpus else "nvidia",
        shm_size=spec.shm_size,
        mounts=spec.mounts,
        devices=spec.devices,
        cap_add=spec.cap_add,
        cap_drop=("ALL", *spec.cap_drop),
        ports=spec.ports,
        network=spec.network,
        memory=memory_limit(spec.memory, info.memory if info else 0),
        cpus=cpu_limit(spec.cpus, info.cpus if info else 0),
        read_only_root=spec.read_only_root,
        scratch=spec.scratch,
        stop_timeout=spec.grace,
        labels=run_labels(spec.key, spec.user, spec.weight, gpus=spec.gpus, cpu_slots=home_cpu_slots),
    )


def container_user(info: EngineInfo | None, caller: str) -> str:
    """Return the container's user whose files belong to the caller on the host.

    A rootless engine maps the container's root to the caller, and all other IDs to subordinate ones.
    """
    return "0:0" if info is not None and info.rootless else caller


def container_paths(config: ExperimentConfig, folder: ExperimentFolder) -> RunPaths:
    """Return the folders of a run, as its container sees them."""
    return RunPaths(CONTAINER_RUN_DIR, WORK_DIR, checkpoint_storage(config, folder).in_run)


def nvidia_smi() -> str:
    """Return the output of `nvidia-smi -L`; "" on a host without NVIDIA's driver."""
    return _ask_nvidia("-L")


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver; None on a host without one."""
    lines = _ask_nvidia("--query-gpu=driver_version", "--format=csv,noheader").split()
    return lines[0] if lines else None


def _ask_nvidia(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


class DockerRuntime:
    """The containers of one experiment, or those that a submission would make.

    Args:
        engine: Has the containers.
        header: The experiment; the engine must be the one that it was submitted to.
        slots: Its part of the host's slot queue.
        limits: Returns what the home may use; called each time, as users change it.
        info: The engine's last answer about itself.
        max_workers: Slow calls in parallel.
        nvidia_smi: Returns the output of `nvidia-smi -L`, or "".
        now: Returns seconds on the host's clock.
        wait: Sleeps for seconds.
    """

    def __init__(
        self,
        engine: Engine,
        header: Header | None,
        slots: SlotQueue,
        *,
        limits: Callable[[], Limits] = Limits,
        info: EngineInfo | None = None,
        max_workers: int = 1,
        nvidia_smi: Callable[[], str] = nvidia_smi,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine, self._header, self._info = engine, header, info
        self._slots, self._limits, self._nvidia_smi = slots, limits, nvidia_smi
        self._now, self._wait = now, wait
        self._pool = _thread_pool(max_workers) if max_workers > 1 else None
        self._starting: dict[RunKey, Future[None]] = {}
        self._waiting: dict[int, Waiting] = {}  # trial -> why it is queued
        self._rebuilt = ""  # replaces the image, if that was removed

    @classmethod
    def of(
        cls,
        folder: ExperimentFolder,
        engine: Engine,
        info: EngineInfo | None = None,
        *,
        max_workers: int = MAX_WORKERS,
    ) -> DockerRuntime:
        """Return the runtime of an experiment; `info` saves a call to the engine."""
        limits = partial(host_limits, folder.path.parent.parent)
        slots = SlotQueue(lock_directory())
        return cls(engine, folder.header(), slots, limits=limits, info=info, max_workers=max_workers)

    @property
    def kind(self) -> Literal["container"]:
        return "container"

    @property
    def observe_interval(self) -> float:
        return _OBSERVE_INTERVAL

    def check(self, config: ExperimentConfig, place: Callable[[KeyPath], str]) -> tuple[Warned, ...]:
        """Check GPUs, mounts and limits; create the checkpoint directory.

        Raises:
            ConfigError: A directory to mount is missing, or belongs to the host itself.
            EngineError: The host has too few GPUs, or the directory cannot be created.
        """
        info = self._known_info()
        check_host(config, info, self._nvidia_smi, gpus=self._read_limits().gpus, place=place)
        return tuple(limit_warnings(config, info))

    def paths(self, config: ExperimentConfig, folder: ExperimentFolder, key: RunKey) -> RunPaths:
        del key
        return container_paths(config, folder)

    def render(self, spec: RunSpec) -> ContainerSpec:
        """Return the container that `create` creates."""
        require_one_host(spec)
        info = self._known_info()
        count = cpu_slots(info, self._read_limits().cpu_trials)
        return container_spec(spec, info, image=self._rebuilt, home_cpu_slots=count)

    @contextmanager
    def place(self, demand: Demand) -> Iterator[Placement | Waiting]:
        """Allocate slots until the container has them, in the order of the host's queue."""
        trial_id, now = demand.key.trial_id, self._now()
        if self._slots.waits(trial_id) and not self._slots.due(trial_id, now):
            yield self._waiting.get(trial_id, Waiting(BEHIND, retry_in=0.0))
            return
        found = self._engine.inspect(demand.key.name)
        if found is not None:
            yield self._adopted(demand.key, found)
            return
        with self._slots.lock():
            request = slot_request(demand, self._engine_id)
            gpus, why = self._slots.ask(request, trial_id, lambda: self._inventory(demand), now=now)
            if not why:
                yield Placement(tuple(gpu.id for gpu in gpus))
                return
        self._waiting[trial_id] = Waiting(why, retry_in=0.0)
        yield self._waiting[trial_id]

    def create(self, spec: RunSpec) -> str | Waiting | Refused:
        try:
            container = self._engine.create(self.render(spec))
        except EngineError as error:
            return self._refused(error)
        return self._exclusive(spec.key, container, spec.gpus) or container

    def start(self, key: RunKey) -> bool | Waiting | Refused:
        try:
            if self._pool is None:
                self._engine.start(key.name)
                return True
            starting = self._starting.pop(key, None) or self._pool.submit(self._engine.start, key.name)
            if not starting.done():
                self._starting[key] = starting
                return False
            starting.result()
        except EngineError as error:
            return self._refused(error)
        return True

    def observe(self, key: RunKey) -> Observation:
        state = self._engine.inspect(key.name)
        if state is None:
            self._ask_engine()  # on another engine it is not lost
            return Observation(phase=Phase.GONE, reason=Reason.LOST, host_memory=self._known_info().memory)
        if state.status == "created":
            return Observation(phase=Phase.CREATED)
        if not state.ended:
            return Observation(phase=Phase.RUNNING)
        self._slots.freed()
        return Observation(
            phase=Phase.ENDED,
            reason=Reason.OUT_OF_MEMORY if state.oom_killed else Reason.NONE,
            message=state.error,
            exit_code=state.exit_code,
            memory=state.memory,
            host_memory=self._known_info().memory,
        )

    def signal(self, key: RunKey, signal: Signal) -> None:
        self._engine.signal(key.name, signal)

    def output_tail(self, key: RunKey, lines: int) -> tuple[str, ...]:
        return self._engine.output_tail(key.name, lines)

    def remove(self, home_id: str, experiment_id: int, *, keep: Collection[RunKey] = ()) -> None:
        names = {key.name for key in keep}
        found = self._engine.find(experiment_labels(home_id, experiment_id))
        unused = [one.id for one in found if one.name not in names]
        in_turn = map if self._pool is None else self._pool.map
        for _ in in_turn(self._engine.remove, unused):
            pass
        if unused:
            self._slots.freed()

    def close(self) -> None:
        self._engine.close()

    def _adopted(self, key: RunKey, found: ContainerState) -> Placement | Waiting:
        """Adopt a container whose controller died right after creating it."""
        gpus = gpus_of(found)
        waiting = self._exclusive(key, found.id, gpus) if found.status == "created" else None
        return waiting or Placement(gpus, created=found.id)

    def _exclusive(self, key: RunKey, container: str, gpus: tuple[str, ...]) -> Waiting | None:
        """Remove a container whose GPUs another one has; it is then queued again."""
        if won(self._engine, container, gpus, self._wait):
            return None
        self._engine.remove(container)
        waiting = Waiting(self._slots.requeue(key.trial_id, now=self._now()), retry_in=0.0)
        self._waiting[key.trial_id] = waiting
        return waiting

    def _refused(self, error: EngineError) -> Waiting | Refused:
        """Find out whether the engine or the image is missing, or the container is refused."""
        self._ask_engine()
        header = self._header
        if header is not None and not self._image_exists(header):
            image = header.image[:19]
            return Waiting(f"the image {image} was removed: run `detbuild build`, then the trial continues")
        return Refused(error)

    def _image_exists(self, header: Header) -> bool:
        """Whether the engine has the experiment's image, or one rebuilt from the same inputs."""
        found = self._engine.image_id(header.image)
        if found is None and header.tag:
            found = self._engine.image_id(header.tag)
        self._rebuilt = found or ""
        return found is not None

    def _inventory(self, demand: Demand) -> Inventory:
        """Return the host's slots of the kind that the run needs."""
        info = self._ask_engine() if demand.slots else self._known_info()  # its cores stay the same
        kind: Kind = "gpu" if demand.slots else "cpu"
        return take_inventory(kind, self._engine, info, self._nvidia_smi, self._read_limits())

    @property
    def _engine_id(self) -> str:
        return self._header.engine if self._header is not None else ""

    def _known_info(self) -> EngineInfo:
        return self._info or self._ask_engine()

    def _ask_engine(self) -> EngineInfo:
        """Ask the engine about itself.

        Raises:
            EngineError: It is unavailable, or not the experiment's: then missing containers are not lost.
        """
        info, header = self._engine.info(), self._header
        if header is not None and info.id and header.engine not in {"", info.id}:
            raise EngineError(
                f"experiment {header.id} runs on Docker Engine {header.engine} at {header.engine_at}, "
                f"but this is {info.id} of {info.name}",
                hint="set DOCKER_HOST to that engine and run `detbuild resume`; if it was removed "
                "permanently, delete the folder of the experiment",
            )
        self._info = info
        return info

    def _read_limits(self) -> Limits:
        """Read the host's config; trials wait while it is invalid."""
        try:
            return self._limits()
        except ConfigError as error:
            raise EngineError(str(error), hint=error.hint) from error


def _thread_pool(max_workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max_workers, thread_name_prefix="engine")
