"""Containers of an experiment that are not its runs: `detbuild shell` and `run`, and copying its code out.

A shell gets GPUs that no run has.
"""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import sweep_drafts
from detbuild.controller.loop import host_limits, nvidia_smi
from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.errors import ConfigError, EngineError
from detbuild.runtime.gpus import shortage, usable, won
from detbuild.runtime.plan import HOME_LABEL, Place, plan_shell, user_of
from detbuild.runtime.slot_queue import SlotQueue, take_inventory
from detbuild.runtime.slot_requests import lock_directory
from detbuild.store.experiment_dir import WORK_DIR, config_of
from detbuild.store.files import file_errors
from detbuild.store.state import fold
from determined._contract.checkpoints import draft_name, drafted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.runtime.gpus import Gpu
    from detbuild.runtime.slot_queue import Limits
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

_TARGET: Final = "/run/detbuild/code"
_COPY: Final = (
    "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True, dirs_exist_ok=True)"
)
_TIMEOUT: Final = 300.0  # seconds for a copy


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
    count = config.resources.slots_per_trial if slots is None else slots
    limits = host_limits(folder.path.parent.parent)
    with SlotQueue(lock_directory()).lock() if count else nullcontext():
        gpus = _free_gpus(engine, info, count, limits) if count else ()
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


def download_code(home: Home, folder: ExperimentFolder, target: Path, connect: Callable[[], Engine]) -> None:
    """Copy the work directory of the experiment's image into the new directory `target`.

    Raises:
        ConfigError: `target` exists and is not empty, or the experiment is local and has no image.
        EngineError: The image is missing, or its files cannot be copied.
    """
    new = not target.exists()  # allowed: a path given by the user
    if not (new or (target.is_dir() and not any(target.iterdir()))):  # allowed: as above too
        raise ConfigError(f"{target} already exists", hint="choose a new or empty directory")
    header = folder.header()
    if header.local:
        raise ConfigError(
            f"experiment {folder.id} ran in {header.context_dir}, not in an image: no copy was made"
        )
    engine = connect()
    image = engine.image_id(header.image) or engine.image_id(header.tag)
    if image is None:
        raise EngineError(
            f"the image of experiment {folder.id} was removed: {header.tag}",
            hint=f"use the copy in `code` of a checkpoint: see `detbuild checkpoint list {folder.id}`",
        )
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)  # allowed: a path given by the user
        above = target.parent.resolve()  # allowed: a path given by the user
        sweep_drafts(above, target.name)
        with drafted(above, draft_name(target.name)) as draft:
            _copy(engine, home, image, draft, user_of(engine.info(), header.user))
            draft.replace(target)  # allowed: a directory that was just made


def _copy(engine: Engine, home: Home, image: str, draft: Path, user: str) -> None:
    spec = ContainerSpec(
        name=f"detbuild-{home.id}-code-{secrets.token_hex(4)}",
        image=image,
        entrypoint=("python3", "-c", _COPY, WORK_DIR, _TARGET),
        user=user,
        mounts=(Mount(source=str(draft), target=_TARGET),),
        network="none",
        labels={HOME_LABEL: home.id},
    )
    container = engine.create(spec)
    try:
        engine.start(container)
        state = engine.wait(container, timeout=_TIMEOUT)
        if state is None or state.exit_code:
            output = "\n".join(engine.output_tail(container, 5))
            raise EngineError(f"cannot copy the code out of the image {image[:19]}:\n{output}")
    finally:
        engine.remove(container)
