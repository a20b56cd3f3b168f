"""Plans the container of a run or a shell, and the run info for the harness; pure, without an engine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.secrets import without_host_secrets
from detbuild.engine.protocol import ContainerSpec, Device, EngineInfo, Mount
from detbuild.runtime.gpus import LABEL, Gpu
from detbuild.runtime.limits import cpu_limit, memory_limit, scratch
from detbuild.store.experiment_dir import WORK_DIR, checkpoint_storage, in_container
from determined._contract.run_info import CONTAINER_RUN_DIR, RUN_DIR_VARIABLE, RunInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.environment import DeviceKind
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import CheckpointStorage, ExperimentFolder, Header
    from determined._contract.run_info import Length

_RUN_DIR: Final = CONTAINER_RUN_DIR
HOME_LABEL: Final = "detbuild.home"
EXPERIMENT_LABEL: Final = "detbuild.experiment"
TRIAL_LABEL: Final = "detbuild.trial"
RUN_LABEL: Final = "detbuild.run"
SHELL_LABEL: Final = "detbuild.shell"  # the experiment whose image a shell runs
USER_LABEL: Final = "detbuild.user"  # UID of the submitter
WEIGHT_LABEL: Final = "detbuild.weight"  # resources.weight
CPU_LABEL: Final = "detbuild.cpu"  # on containers with a CPU slot: CPU slots of their home
_GRACE: Final = 3600  # seconds for a run to checkpoint after a stop
_SHELL_GRACE: Final = 10  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One run of one trial, as decided by the controller."""

    trial_id: int
    run: int
    trial_seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    cpu_slots: int = 1  # of its home
    length: Length | None = None  # to train to, in total
    milestones: tuple[int, ...] = ()
    checkpoints: tuple[str, ...] = ()  # the trial's own, newest first
    source: tuple[str, ...] = ()  # those of its parent trial, newest first
    best_validation: float | None = None
    last_failure: str = ""  # error of the previous run
    failed_alike: int = 0  # how many in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The home, experiment and user of a run, and its host."""

    home_id: str
    folder: ExperimentFolder
    header: Header
    user: str  # uid:gid
    host_memory: int = 0  # bytes of the engine's host; 0 if unknown
    host_cpus: int = 0


def user_of(info: EngineInfo, caller: str) -> str:
    """Return the container's user whose files belong to the caller on the host.

    A rootless engine maps the container's root to the caller, and all other IDs to subordinate ones.
    """
    return "0:0" if info.rootless else caller


def container_name(home_id: str, experiment_id: int, trial_id: int, run: int) -> str:
    """Return the container's name: unique to the run, so that a second one cannot be created."""
    return f"detbuild-{home_id}-{experiment_id}-{trial_id}-{run}"


def plan_run(config: ExperimentConfig, request: RunRequest, place: Place) -> tuple[RunInfo, ContainerSpec]:
    """Plan the container and the run info of a run."""
    info = _run_info(config, request, place)
    name = container_name(place.home_id, place.header.id, request.trial_id, request.run)
    spec = ContainerSpec(
        name=name,
        image=place.header.image,
        env={**variables(config), RUN_DIR_VARIABLE: _RUN_DIR},
        user=place.user,
        gpus=info.gpu_ids,
        gpu_driver=request.gpus[0].driver if request.gpus else "nvidia",
        shm_size=config.resources.shm_size,
        mounts=_mounts(config, request, place),
        devices=tuple(Device(d.host_path, d.container_path, d.mode) for d in config.resources.devices),
        cap_add=config.environment.add_capabilities,
        cap_drop=("ALL", *config.environment.drop_capabilities),
        ports=tuple(sorted(set(config.environment.ports.values()))),
        network=place.header.network,
        memory=memory_limit(config.resources.memory, place.host_memory),
        cpus=cpu_limit(config.resources.cpus, place.host_cpus),
        read_only_root=config.environment.read_only_root,
        scratch=scratch(config),
        stop_timeout=grace(config),
        labels=_labels(config, request, place),
    )
    return info, spec


def grace(config: ExperimentConfig) -> int:
    """Return the seconds for a run to checkpoint after a stop."""
    return config.preemption_timeout or _GRACE


def local_run_info(
    config: ExperimentConfig, request: RunRequest, folder: ExperimentFolder, header: Header
) -> RunInfo:
    """Plan the run info of a run on the host, without a container."""
    storage = checkpoint_storage(config, folder)
    return _info(
        config,
        request,
        header,
        run_dir=str(folder.run(request.trial_id, request.run).path),
        context_dir=header.context_dir,
        checkpoint_dir=str(storage.on_host or folder.checkpoints),
    )


def _run_info(config: ExperimentConfig, request: RunRequest, place: Place) -> RunInfo:
    storage = checkpoint_storage(config, place.folder)
    return _info(
        config,
        request,
        place.header,
        run_dir=_RUN_DIR,
        context_dir=WORK_DIR,
        checkpoint_dir=storage.in_run,
    )


def _info(
    config: ExperimentConfig,
    request: RunRequest,
    header: Header,
    *,
    run_dir: str,
    context_dir: str,
    checkpoint_dir: str,
) -> RunInfo:
    named = config.searcher.source_checkpoint_uuid
    source = request.source or ((named,) if named else ())
    return RunInfo(
        experiment_id=header.id,
        trial_id=request.trial_id,
        run=request.run,
        trial_seed=request.trial_seed,
        slots=config.resources.slots_per_trial,
        entrypoint=config.entrypoint.value,
        run_dir=run_dir,
        context_dir=context_dir,
        context_name=header.context_name,
        checkpoint_dir=checkpoint_dir,
        max_length=request.length,
        milestones=request.milestones,
        hparams=request.hparams,
        config=without_host_secrets(config.resolved(), type(config)),
        test_mode=header.test_mode,
        checkpoints=request.checkpoints or source,
        warm_start=bool(source) and not request.checkpoints,
        best_validation=request.best_validation,
        last_failure=request.last_failure,
        failed_alike=request.failed_alike,
        gpu_ids=tuple(gpu.id for gpu in request.gpus),
        startup_hook=header.startup_hook,
        run_hooks=header.local_hooks or not header.local,
    )


def variables(config: ExperimentConfig) -> dict[str, str]:
    """Return the user's environment variables for the trial's kind of device."""
    kind: DeviceKind = "cuda" if config.resources.slots_per_trial else "cpu"
    given = (text.partition("=") for text in config.environment.environment_variables.of(kind))
    return {name: value for name, _, value in given}


def _mounts(config: ExperimentConfig, request: RunRequest, place: Place) -> tuple[Mount, ...]:
    run = Mount(source=str(place.folder.run(request.trial_id, request.run).path), target=_RUN_DIR)
    storage = checkpoint_storage(config, place.folder)
    own = tuple(
        Mount(
            source=mount.host_path,
            target=in_container(mount.container_path),
            read_only=mount.read_only,
            propagation=mount.propagation,
        )
        for mount in config.bind_mounts
    )
    return (
        run,
        *((storage.mount,) if storage.mount else ()),
        *own,
        *_source_mount(config, place.folder, storage),
    )


def _source_mount(
    config: ExperimentConfig, folder: ExperimentFolder, storage: CheckpointStorage
) -> tuple[Mount, ...]:
    """Return a read-only mount of the source checkpoint if it may belong to another experiment.

    In the experiment's folder it is a copy, which the run may change.
    """
    uuid = config.searcher.source_checkpoint_uuid
    if uuid is None or storage.on_host in {None, folder.checkpoints}:
        return ()
    source = Path(storage.on_host or "", uuid)
    if source.is_symlink() or not source.is_dir():
        return ()
    return (Mount(source=str(source), target=f"{storage.in_run}/{uuid}", read_only=True),)


def _labels(config: ExperimentConfig, request: RunRequest, place: Place) -> dict[str, str]:
    slots = (
        {LABEL: ",".join(gpu.id for gpu in request.gpus)}
        if request.gpus
        else {CPU_LABEL: str(request.cpu_slots)}
    )
    return {
        HOME_LABEL: place.home_id,
        EXPERIMENT_LABEL: str(place.header.id),
        TRIAL_LABEL: str(request.trial_id),
        RUN_LABEL: str(request.run),
        USER_LABEL: place.header.user.partition(":")[0],
        WEIGHT_LABEL: f"{config.resources.weight:g}",
        **slots,
    }


def plan_shell(
    config: ExperimentConfig,
    place: Place,
    command: Sequence[str],
    *,
    run: tuple[int, int] | None = None,
    gpus: Sequence[Gpu] = (),
    terminal: bool = False,
) -> ContainerSpec:
    """Plan the container.

    Args:
        config: The experiment's config.
        place: The experiment and its user.
        command: The command to run instead of the harness, in the context directory.
        run: Trial and run that `det.get_cluster_info()` describes inside; its folder is mounted read-only.
        gpus: In use until the container is removed.
        terminal: Allocate a terminal.
    """
    held = {LABEL: ",".join(gpu.id for gpu in gpus)} if gpus else {}
    run_info = {RUN_DIR_VARIABLE: _RUN_DIR} if run else {}
    return ContainerSpec(
        name=f"detbuild-{place.home_id}-{place.header.id}-shell-{secrets.token_hex(4)}",
        image=place.header.image,
        entrypoint=tuple(command[:1]),
        command=tuple(command[1:]),
        env={**_home(config), **variables(config), **run_info},
        user=place.user,
        gpus=tuple(gpu.id for gpu in gpus),
        gpu_driver=gpus[0].driver if gpus else "nvidia",
        shm_size=config.resources.shm_size,
        mounts=_shell_mounts(config, place, run),
        network=place.header.network,
        memory=memory_limit(config.resources.memory, place.host_memory),
        cpus=cpu_limit(config.resources.cpus, place.host_cpus),
        read_only_root=config.environment.read_only_root,
        scratch=scratch(config),
        cap_add=config.environment.add_capabilities,
        cap_drop=("ALL", *config.environment.drop_capabilities),
        stdin=True,
        terminal=terminal,
        stop_timeout=_SHELL_GRACE,
        # Not EXPERIMENT_LABEL: the controller removes containers with it that are not its runs.
        labels={
            HOME_LABEL: place.home_id,
            SHELL_LABEL: str(place.header.id),
            USER_LABEL: place.header.user.partition(":")[0],
            **held,
        },
    )


def _home(config: ExperimentConfig) -> dict[str, str]:
    """Set a writable HOME, as the harness does for a trial."""
    return {"HOME": "/tmp"} if config.environment.read_only_root else {}  # noqa: S108  (of a container)


def _shell_mounts(config: ExperimentConfig, place: Place, run: tuple[int, int] | None) -> tuple[Mount, ...]:
    storage = checkpoint_storage(config, place.folder).mount
    run_info = (
        Mount(source=str(place.folder.run(*run).path), target=_RUN_DIR, read_only=True) if run else None
    )
    own = tuple(
        Mount(
            source=mount.host_path,
            target=in_container(mount.container_path),
            read_only=mount.read_only,
            propagation=mount.propagation,
        )
        for mount in config.bind_mounts
    )
    return tuple(mount for mount in (run_info, storage, *own) if mount is not None)
