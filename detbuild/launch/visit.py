"""A container for a person: the image, user, mounts and GPUs of an experiment, and a command of their own."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.launch.gpus import LABEL
from detbuild.launch.limits import cpu_limit, memory_limit, scratch
from detbuild.launch.plan import HOME_LABEL, RUN_DIR, SHELL_LABEL, USER_LABEL, variables
from detbuild.store.storage import checkpoint_storage, in_container
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
    """Decide the whole container.

    Args:
        config: Of the experiment.
        place: Which experiment, and as whom.
        command: What to run in the place of the harness, in the context directory.
        run: Trial and run that `det.get_cluster_info()` tells of inside; its folder is mounted read-only.
        gpus: Held by the container until it is removed.
        terminal: For a person at a keyboard.
    """
    held = {LABEL: ",".join(gpu.id for gpu in gpus)} if gpus else {}
    told = {RUN_DIR_VARIABLE: RUN_DIR} if run else {}
    return ContainerSpec(
        name=f"detbuild-{place.home_id}-{place.header.id}-visit-{secrets.token_hex(4)}",
        image=place.header.image,
        entrypoint=tuple(command[:1]),
        command=tuple(command[1:]),
        env={**_home(config), **variables(config), **told},
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
        # Not the experiment's own label: its controller removes what carries that and is no run of it.
        labels={
            HOME_LABEL: place.home_id,
            SHELL_LABEL: str(place.header.id),
            USER_LABEL: place.header.user.partition(":")[0],
            **held,
        },
    )


def _home(config: ExperimentConfig) -> dict[str, str]:
    """A home that can be written, as the harness gives one to a trial."""
    return {"HOME": "/tmp"} if config.environment.read_only_root else {}  # noqa: S108  (of a container)


def _mounts(config: ExperimentConfig, place: Place, run: tuple[int, int] | None) -> tuple[Mount, ...]:
    storage = checkpoint_storage(config, place.folder).mount
    told = Mount(source=str(place.folder.run(*run).path), target=RUN_DIR, read_only=True) if run else None
    own = tuple(
        Mount(
            source=mount.host_path,
            target=in_container(mount.container_path),
            read_only=mount.read_only,
            propagation=mount.propagation,
        )
        for mount in config.bind_mounts
    )
    return tuple(mount for mount in (told, storage, *own) if mount is not None)
