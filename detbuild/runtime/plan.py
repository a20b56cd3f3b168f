"""Plans a run, and the run info for the harness; pure, and the same for every runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.secrets import without_host_secrets
from detbuild.engine.protocol import Device, Mount
from detbuild.runtime.fair_share import PRIORITY
from detbuild.runtime.labels import user_id
from detbuild.runtime.limits import scratch
from detbuild.runtime.protocol import Demand, RunKey, RunSpec
from detbuild.store.experiment_dir import checkpoint_storage, in_container
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.environment import DeviceKind
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.runtime.protocol import RunPaths
    from detbuild.store.experiment_dir import CheckpointStorage, ExperimentFolder, Header
    from determined._contract.run_info import Length

_GRACE: Final = 3600  # seconds for a run to checkpoint after a stop


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One run of one trial, as decided by the controller."""

    trial_id: int
    run: int
    trial_seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)
    length: Length | None = None  # to train to, in total
    milestones: tuple[int, ...] = ()
    checkpoints: tuple[str, ...] = ()  # the trial's own, newest first
    source: tuple[str, ...] = ()  # those of its parent trial, newest first
    best_validation: float | None = None
    last_failure: str = ""  # error of the previous run
    failed_alike: int = 0  # how many in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOwner:
    """The experiment of a run."""

    home_id: str
    folder: ExperimentFolder
    header: Header

    def key(self, trial_id: int, run: int) -> RunKey:
        return RunKey(self.home_id, self.header.id, trial_id, run)


def plan_demand(config: ExperimentConfig, key: RunKey, user: str) -> Demand:
    """Plan the slots of a run; `user` is "uid:gid"."""
    resources = config.resources
    return Demand(
        key=key,
        user=user_id(user),
        slots=resources.slots_per_trial,
        priority=PRIORITY if resources.priority is None else resources.priority,
        weight=resources.weight,
        max_slots=resources.max_slots,
    )


def plan_run(
    config: ExperimentConfig,
    request: RunRequest,
    owner: RunOwner,
    paths: RunPaths,
    gpus: Sequence[str] = (),
) -> RunSpec:
    """Plan a run.

    Args:
        config: The experiment's config.
        request: The run.
        owner: Its experiment.
        paths: Its folders, as it will see them.
        gpus: IDs of its GPUs.
    """
    resources, environment = config.resources, config.environment
    return RunSpec(
        key=owner.key(request.trial_id, request.run),
        info=_run_info(config, request, owner, paths, gpus),
        image=owner.header.image,
        user=owner.header.user,
        slots=resources.slots_per_trial,
        gpus=tuple(gpus),
        env={**variables(config), RUN_DIR_VARIABLE: paths.run_dir},
        mounts=_mounts(config, request, owner, paths),
        memory=resources.memory,
        cpus=resources.cpus,
        shm_size=resources.shm_size,
        devices=tuple(Device(d.host_path, d.container_path, d.mode) for d in resources.devices),
        ports=tuple(sorted(set(environment.ports.values()))),
        network=owner.header.network,
        cap_add=environment.add_capabilities,
        cap_drop=environment.drop_capabilities,
        read_only_root=environment.read_only_root,
        scratch=scratch(config),
        weight=resources.weight,
        grace=grace(config),
    )


def grace(config: ExperimentConfig) -> int:
    """Return the seconds for a run to checkpoint after a stop."""
    return config.preemption_timeout or _GRACE


def _run_info(
    config: ExperimentConfig, request: RunRequest, owner: RunOwner, paths: RunPaths, gpus: Sequence[str]
) -> RunInfo:
    header = owner.header
    named = config.searcher.source_checkpoint_uuid
    source = request.source or ((named,) if named else ())
    return RunInfo(
        experiment_id=header.id,
        trial_id=request.trial_id,
        run=request.run,
        trial_seed=request.trial_seed,
        slots=config.resources.slots_per_trial,
        entrypoint=config.entrypoint.value,
        run_dir=paths.run_dir,
        context_dir=paths.context_dir,
        context_name=header.context_name,
        checkpoint_dir=paths.checkpoint_dir,
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
        gpu_ids=tuple(gpus),
        startup_hook=header.startup_hook,
        run_hooks=header.local_hooks or not header.local,
    )


def variables(config: ExperimentConfig) -> dict[str, str]:
    """Return the user's environment variables for the trial's kind of device."""
    kind: DeviceKind = "cuda" if config.resources.slots_per_trial else "cpu"
    given = (text.partition("=") for text in config.environment.environment_variables.of(kind))
    return {name: value for name, _, value in given}


def _mounts(
    config: ExperimentConfig, request: RunRequest, owner: RunOwner, paths: RunPaths
) -> tuple[Mount, ...]:
    folder = owner.folder
    run = Mount(source=str(folder.run(request.trial_id, request.run).path), target=paths.run_dir)
    storage = checkpoint_storage(config, folder)
    return (
        run,
        *((storage.mount,) if storage.mount else ()),
        *user_mounts(config),
        *_source_mount(config, folder, storage),
    )


def user_mounts(config: ExperimentConfig) -> tuple[Mount, ...]:
    """Return `bind_mounts` as mounts."""
    return tuple(
        Mount(
            source=mount.host_path,
            target=in_container(mount.container_path),
            read_only=mount.read_only,
            propagation=mount.propagation,
        )
        for mount in config.bind_mounts
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
