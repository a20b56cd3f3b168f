"""Plans the container of `detbuild shell` and `run`: as for a trial, with another command."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.launch.gpus import LABEL
from detbuild.launch.limits import cpu_limit, memory_limit, scratch
from detbuild.launch.plan import HOME_LABEL, RUN_DIR, SHELL_LABEL, USER_LABEL, variables
from detbuild.store.experiment_dir import checkpoint_storage, in_container
from determined._run_info import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.launch.gpus import Gpu
    from detbuild.launch.plan import Place

_GRACE: Final = 10  # seconds between SIGTERM and SIGKILL


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
    run_info = {RUN_DIR_VARIABLE: RUN_DIR} if run else {}
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
        mounts=_mounts(config, place, run),
        network=place.header.network,
        memory=memory_limit(config.resources.memory, place.host_memory),
        cpus=cpu_limit(config.resources.cpus, place.host_cpus),
        read_only_root=config.environment.read_only_root,
        scratch=scratch(config),
        cap_add=config.environment.add_capabilities,
        cap_drop=("ALL", *config.environment.drop_capabilities),
        stdin=True,
        terminal=terminal,
        stop_timeout=_GRACE,
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


def _mounts(config: ExperimentConfig, place: Place, run: tuple[int, int] | None) -> tuple[Mount, ...]:
    storage = checkpoint_storage(config, place.folder).mount
    run_info = Mount(source=str(place.folder.run(*run).path), target=RUN_DIR, read_only=True) if run else None
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
