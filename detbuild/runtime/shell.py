"""`detbuild shell` and `run`: a container of an experiment's image, with GPUs that no run has."""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.errors import ConfigError, EngineError
from detbuild.runtime.docker import container_user, nvidia_smi
from detbuild.runtime.gpus import driver_of, shortage, usable, won
from detbuild.runtime.labels import GPU_LABEL, HOME_LABEL, SHELL_LABEL, USER_LABEL, user_id
from detbuild.runtime.limits import cpu_limit, memory_limit, scratch
from detbuild.runtime.plan import RunOwner, user_mounts, variables
from detbuild.runtime.slot_queue import SlotQueue, host_limits, take_inventory
from detbuild.runtime.slot_requests import lock_directory
from detbuild.store.experiment_dir import checkpoint_storage, config_of
from detbuild.store.state import fold
from determined._contract.run_info import CONTAINER_RUN_DIR, RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import Containers, Engine, EngineInfo
    from detbuild.runtime.slot_queue import Limits
    from detbuild.store.experiment_dir import ExperimentFolder

_GRACE: Final = 10  # seconds between SIGTERM and SIGKILL


def create_shell(
    engine: Engine,
    home_id: str,
    folder: ExperimentFolder,
    command: Sequence[str],
    *,
    trial_id: int = 1,
    slots: int | None = None,
    terminal: bool = False,
) -> str:
    """Create the container and return its id; the caller starts and removes it.

    Args:
        engine: Has the experiment's image.
        home_id: ID of its home.
        folder: The experiment.
        command: The command to run.
        trial_id: `det.get_cluster_info()` inside describes its newest run, if it has one.
        slots: GPUs; by default as many as a trial of the experiment.
        terminal: Allocate a terminal.

    Raises:
        ConfigError: The experiment has no image, or the home's config file is invalid.
        EngineError: The image was removed, or too few GPUs are free.
    """
    header, config, info = folder.header(), config_of(folder), engine.info()
    if header.local:
        raise ConfigError(f"experiment {folder.id} ran without a container: it has no image")
    if engine.image_id(header.image) is None:
        raise EngineError(
            f"the image of experiment {folder.id} was removed: {header.tag}",
            hint="create the experiment again",
        )
    owner = RunOwner(home_id=home_id, folder=folder, header=header)
    count = config.resources.slots_per_trial if slots is None else slots
    limits = host_limits(folder.path.parent.parent)
    with SlotQueue(lock_directory()).lock() if count else nullcontext():
        gpus = _free_gpus(engine, info, count, limits) if count else ()
        run = _newest_run(folder, trial_id)
        spec = plan_shell(config, owner, info, command, run=run, gpus=gpus, terminal=terminal)
        container = engine.create(spec)
    if not won(engine, container, spec.gpus, time.sleep):
        engine.remove(container)
        raise EngineError(
            "another container got the same GPU at the same moment", hint="run the command again"
        )
    return container


def _free_gpus(engine: Containers, info: EngineInfo, slots: int, limits: Limits) -> tuple[str, ...]:
    """Return free GPUs; a shell does not wait in the queue."""
    inventory = take_inventory("gpu", engine, info, nvidia_smi, limits)
    requested = f"{slots} GPU{'s' if slots > 1 else ''} requested"
    why = shortage(inventory.gpus, slots)
    if why:
        hint = "use --slots 0 to run without GPUs; `detbuild doctor` checks for GPUs"
        raise EngineError(f"{requested}, but {why}", hint=hint)
    if len(inventory.free_gpus) < slots:
        own = [gpu.id for gpu in usable(inventory.gpus)]
        raise EngineError(
            f"{requested}: {inventory.usage(own)}", hint="wait, or use --slots 0 to run without GPUs"
        )
    return tuple(gpu.id for gpu in inventory.free_gpus[:slots])


def _newest_run(folder: ExperimentFolder, trial_id: int) -> tuple[int, int] | None:
    trial = fold(folder.header(), folder.journal()).trials.get(trial_id)
    runs = [run.run for run in trial.runs if folder.run(trial_id, run.run).exists] if trial else []
    return (trial_id, runs[-1]) if runs else None


def plan_shell(
    config: ExperimentConfig,
    owner: RunOwner,
    info: EngineInfo,
    command: Sequence[str],
    *,
    run: tuple[int, int] | None = None,
    gpus: Sequence[str] = (),
    terminal: bool = False,
) -> ContainerSpec:
    """Plan the container.

    Args:
        config: The experiment's config.
        owner: The experiment.
        info: The engine.
        command: The command to run instead of the harness, in the context directory.
        run: Trial and run that `det.get_cluster_info()` describes inside; its folder is mounted read-only.
        gpus: IDs, in use until the container is removed.
        terminal: Allocate a terminal.
    """
    held = {GPU_LABEL: ",".join(gpus)} if gpus else {}
    run_info = {RUN_DIR_VARIABLE: CONTAINER_RUN_DIR} if run else {}
    return ContainerSpec(
        name=f"detbuild-{owner.home_id}-{owner.header.id}-shell-{secrets.token_hex(4)}",
        image=owner.header.image,
        entrypoint=tuple(command[:1]),
        command=tuple(command[1:]),
        env={**_home(config), **variables(config), **run_info},
        user=container_user(info, owner.header.user),
        gpus=tuple(gpus),
        gpu_driver=driver_of(gpus[0]) if gpus else "nvidia",
        shm_size=config.resources.shm_size,
        mounts=_mounts(config, owner, run),
        network=owner.header.network,
        memory=memory_limit(config.resources.memory, info.memory),
        cpus=cpu_limit(config.resources.cpus, info.cpus),
        read_only_root=config.environment.read_only_root,
        scratch=scratch(config),
        cap_add=config.environment.add_capabilities,
        cap_drop=("ALL", *config.environment.drop_capabilities),
        stdin=True,
        terminal=terminal,
        stop_timeout=_GRACE,
        # Not EXPERIMENT_LABEL: the controller removes containers with it that are not its runs.
        labels={
            HOME_LABEL: owner.home_id,
            SHELL_LABEL: str(owner.header.id),
            USER_LABEL: user_id(owner.header.user),
            **held,
        },
    )


def _home(config: ExperimentConfig) -> dict[str, str]:
    """Set a writable HOME, as the harness does for a trial."""
    return {"HOME": "/tmp"} if config.environment.read_only_root else {}  # noqa: S108  (of a container)


def _mounts(config: ExperimentConfig, owner: RunOwner, run: tuple[int, int] | None) -> tuple[Mount, ...]:
    storage = checkpoint_storage(config, owner.folder).mount
    source = str(owner.folder.run(*run).path) if run else ""
    run_info = Mount(source=source, target=CONTAINER_RUN_DIR, read_only=True) if run else None
    return tuple(mount for mount in (run_info, storage, *user_mounts(config)) if mount is not None)
