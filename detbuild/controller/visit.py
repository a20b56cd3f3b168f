"""Creates the container of `detbuild shell` and `run`, with exclusive GPUs."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.controller.start import host_limits, nvidia_smi
from detbuild.errors import ConfigError, EngineError
from detbuild.launch.gpus import shortage, usable, won
from detbuild.launch.hostlock import lock_directory
from detbuild.launch.plan import Place, user_of
from detbuild.launch.slots import SlotQueue
from detbuild.launch.stock import take_inventory
from detbuild.launch.visit import plan_shell
from detbuild.store.experiment_dir import config_of
from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.launch.gpus import Gpu
    from detbuild.launch.stock import Limits
    from detbuild.store.experiment_dir import ExperimentFolder


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
    place = Place(home_id=home_id, folder=folder, header=header, user=user_of(info, header.user))
    place = replace(place, host_memory=info.memory, host_cpus=info.cpus)
    wanted = config.resources.slots_per_trial if slots is None else slots
    limits = host_limits(folder.path.parent.parent)
    with SlotQueue(lock_directory()).lock() if wanted else nullcontext():
        gpus = _free_gpus(engine, info, wanted, limits) if wanted else ()
        run = _newest_run(folder, trial_id)
        spec = plan_shell(config, place, command, run=run, gpus=gpus, terminal=terminal)
        container = engine.create(spec)
    if not won(engine, container, spec.gpus, time.sleep):
        engine.remove(container)
        raise EngineError(
            "another container got the same GPU at the same moment", hint="run the command again"
        )
    return container


def _free_gpus(engine: Engine, info: EngineInfo, slots: int, limits: Limits) -> tuple[Gpu, ...]:
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
    return inventory.free_gpus[:slots]


def _newest_run(folder: ExperimentFolder, trial_id: int) -> tuple[int, int] | None:
    trial = fold(folder.header(), folder.journal()).trials.get(trial_id)
    runs = [run.run for run in trial.runs if folder.run(trial_id, run.run).exists] if trial else []
    return (trial_id, runs[-1]) if runs else None
