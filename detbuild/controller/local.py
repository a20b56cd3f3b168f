"""Runs the trials of an experiment on this host, one after the other, without a container.

Folders, events and checkpoints are those of any other experiment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.localsearch import LocalSearch
from detbuild.launch.plan import variables
from detbuild.store.files import file_errors
from detbuild.store.follow import ExperimentTail
from detbuild.store.state import ExperimentState, load
from determined._run_info import RUN_DIR_VARIABLE
from determined.exec import ENTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder
    from determined._run_info import RunInfo

_POLL = 0.05  # seconds


def run_local(
    folder: ExperimentFolder,
    config: ExperimentConfig,
    environ: Mapping[str, str],
    emit: Emit,
    *,
    lease_descriptor: int,
) -> ExperimentState:
    """Train to the end in processes of this host. Ctrl-C asks to checkpoint and leave, twice kills.

    Args:
        folder: Of the experiment; the caller holds its lease.
        config: As submitted.
        environ: For the processes.
        emit: Told of all that happens.
        lease_descriptor: Holds the lease; the processes inherit it.
    """
    events = ExperimentTail(folder)
    search = LocalSearch(folder, config)
    while (info := search.next_run()) is not None:
        own = {**_of_this_python(environ), **variables(config)}
        process = _start(folder, info, own, lease_descriptor)
        search.created(info)
        _watch(search, info, process, lambda: events.emit(emit))
        code = process.returncode
        search.ended(info, exit_code=code if code >= 0 else 128 - code)
    events.emit(emit)
    return load(folder)


def run_here(
    folder: ExperimentFolder, config: ExperimentConfig, train: Callable[[RunInfo], int], emit: Emit
) -> ExperimentState:
    """Train in this very process: `train` is told what any run is told, and returns the run's exit code.

    Events are emitted from a thread of their own while it trains. The caller holds the experiment's lease.
    """
    search = LocalSearch(folder, config)
    with _telling(folder, emit):
        while (info := search.next_run()) is not None:
            search.created(info)
            search.ended(info, exit_code=train(info))
    return load(folder)


@contextmanager
def _telling(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Emit the events of an experiment while the block runs, and those that are left after it."""
    events, over = ExperimentTail(folder), threading.Event()

    def tell() -> None:
        while not over.wait(_POLL):
            events.emit(emit)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        events.emit(emit)


def _of_this_python(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `python3` is this one, also where its virtual environment is not activated."""
    directory = str(Path(sys.executable).parent)
    return {**environ, "PATH": os.pathsep.join(filter(None, (directory, environ.get("PATH", os.defpath))))}


def _start(
    folder: ExperimentFolder, info: RunInfo, environ: Mapping[str, str], lease_descriptor: int
) -> subprocess.Popen[bytes]:
    with file_errors(folder.log_file), folder.log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ENTRY)],
            env={**environ, RUN_DIR_VARIABLE: info.run_dir},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it is in the run's folder
            stderr=log,
            pass_fds=(lease_descriptor,),  # while it lives the experiment is held, whatever becomes of us
            start_new_session=True,  # Ctrl-C is for us
        )


def _watch(
    search: LocalSearch, info: RunInfo, process: subprocess.Popen[bytes], tell: Callable[[], None]
) -> None:
    """Tell what happens until the process has ended; pass on what is asked of it."""
    sent = ""
    while process.poll() is None:
        try:
            tell()
            sent = _pass_on(search.listen(info), sent, process)
            time.sleep(_POLL)
        except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time, and is a request)
            search.book.folder.request("kill" if sent else "cancel")


def _pass_on(stop: str, sent: str, process: subprocess.Popen[bytes]) -> str:
    number = signal.SIGKILL if stop == "kill" else signal.SIGTERM
    if stop and stop != sent:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, number)
    return stop
