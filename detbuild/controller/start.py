"""Creates the controller of an experiment, in this process or in a detached one."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.host import host_config
from detbuild.controller.book import JournaledState
from detbuild.controller.clock import SystemClock
from detbuild.controller.hands import AT_ONCE
from detbuild.controller.heed import apply_pending_requests
from detbuild.controller.lease import name_holder
from detbuild.controller.loop import Controller
from detbuild.controller.world import ControllerContext
from detbuild.launch.hostlock import lock_directory
from detbuild.launch.slots import SlotQueue
from detbuild.launch.stock import Limits
from detbuild.search.registry import search_method
from detbuild.store.experiment_dir import config_of, search_config_of
from detbuild.store.files import file_errors
from detbuild.store.home import Home

if TYPE_CHECKING:
    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.store.experiment_dir import ExperimentFolder


def controller_of(
    folder: ExperimentFolder, engine: Engine, info: EngineInfo | None = None, *, max_workers: int = AT_ONCE
) -> Controller:
    """Create the controller from the experiment's folder; `info` saves a call to the engine.

    The caller holds the lease. Pending requests are applied here, and may change the config.
    """
    apply_pending_requests(JournaledState(folder=folder))
    home = Home.open(folder.path.parent.parent)
    context = ControllerContext(
        folder=folder,
        engine=engine,
        config=config_of(folder),
        home_id=home.id,
        clock=SystemClock(),
        nvidia_smi=nvidia_smi,
        slots=SlotQueue(lock_directory()),
        limits=partial(host_limits, home.path),
        info=info,
        max_workers=max_workers,
    )
    context_dir = Path(context.state.header.context_dir)
    return Controller(context, search_method(search_config_of(folder), context_dir))


def host_limits(home: Path) -> Limits:
    """Return the host limits of a home, from its config file.

    Raises:
        ConfigError: The file is invalid.
    """
    host = host_config(home)
    return Limits(cpu_trials=host.cpu_trials, gpus=host.gpus)


def first_steps(folder: ExperimentFolder, engine: Engine, info: EngineInfo) -> None:
    """Run the experiment in this process until its first run has started, which saves loading time.

    The caller holds the lease. The next controller adopts the container, as after a crash.
    """
    controller_of(folder, engine, info, max_workers=1).step()


def start_detached(folder: ExperimentFolder, lease_descriptor: int) -> None:
    """Start the controller as a detached process, which inherits the lease.

    Args:
        folder: The experiment.
        lease_descriptor: Holds the lease; the caller closes it after this call.
    """
    with file_errors(folder.log_file), folder.files.append(folder.log_file.name) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "detbuild.controller", str(folder.path), str(lease_descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # not the caller's: `python -m` would import from there
            pass_fds=(lease_descriptor,),
            start_new_session=True,
        )
    name_holder(lease_descriptor, process.pid)
    # Reap it in programs that outlive it.
    threading.Thread(target=process.wait, daemon=True).start()


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
