"""Runs the one trial of an experiment on this host, without a container, in the same folders as any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from detbuild.controller.keeping import end_local, tidy
from detbuild.launch.failure import Evidence, judge
from detbuild.launch.plan import RunRequest, local_run_info, variables
from detbuild.launch.restart import ending
from detbuild.search.method import CreateTrial
from detbuild.search.methods import search_method
from detbuild.store import journal
from detbuild.store.files import file_errors
from detbuild.store.follow import ExperimentTail
from detbuild.store.output import tail
from detbuild.store.runs import read_run
from detbuild.store.state import ExperimentState, fold, load
from determined._run_info import RUN_DIR_VARIABLE
from determined.exec import ENTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder
    from determined._run_info import RunInfo

_POLL = 0.05  # seconds
_SIGNALS = {"cancel": signal.SIGTERM, "kill": signal.SIGKILL}


def run_local(
    folder: ExperimentFolder,
    config: ExperimentConfig,
    environ: Mapping[str, str],
    emit: Emit,
    *,
    lease_descriptor: int,
) -> ExperimentState:
    """Train to the end in a process of this host. Ctrl-C asks it to checkpoint and leave, twice kills it.

    Args:
        folder: Of the experiment; the caller holds its lease.
        config: As submitted.
        environ: For the process.
        emit: Told of all that happens.
        lease_descriptor: Holds the lease; the process inherits it.
    """
    events = ExperimentTail(folder)
    trial = _create_trial(folder, config)
    process = _start(folder, config, trial, environ, lease_descriptor)
    _watch(process, events, emit)
    settle(folder, exit_code=process.returncode if process.returncode >= 0 else 128 - process.returncode)
    events.emit(emit)
    return load(folder)


def run_here(
    folder: ExperimentFolder, config: ExperimentConfig, train: Callable[[RunInfo], int], emit: Emit
) -> ExperimentState:
    """Train in this very process: `train` is told what any run is told, and returns the run's exit code.

    Events are emitted from a thread of their own while it trains. The caller holds the experiment's lease.
    """
    info = _intend(folder, config, _create_trial(folder, config))
    folder.record(journal.RunCreated(trial_id=info.trial_id, run=info.run, container=""))
    with _telling(folder, emit):
        settle(folder, exit_code=train(info))
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


def settle(folder: ExperimentFolder, *, exit_code: int | None) -> None:
    """Write down how a local run ended. It is never tried again: the person is there to see why.

    Args:
        folder: Of the experiment; the caller holds its lease.
        exit_code: None when the process that knew it is gone.
    """
    state = fold(folder.header(), folder.journal())
    if state.over:
        tidy(folder)
        return
    stop = folder.requested()
    for trial in state.trials.values():
        last = trial.last_run
        if trial.open_run is not None:
            run_folder = folder.run(trial.id, trial.open_run.run)
            evidence = Evidence(
                records=read_run(run_folder, over=True),
                exit_code=exit_code,
                stop=stop,
                tail=tail(run_folder),
                kind="process",
            )
            last = judge(evidence, trial_id=trial.id, run=trial.open_run.run, restarts_left=0)
            folder.record(last)
        name, why = ending(last, stop=stop, max_restarts=0)
        folder.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
        end_local(folder, journal.ExperimentFinished(state=name, why=why))
    if not state.trials:
        folder.record(journal.ExperimentFinished(state="ERROR", why="its process ended before it began"))


def _create_trial(folder: ExperimentFolder, config: ExperimentConfig) -> CreateTrial:
    (trial,) = (d for d in search_method(config).decide(()) if isinstance(d, CreateTrial))
    folder.record(journal.TrialCreated(trial_id=trial.trial_id, seed=trial.seed, hparams=trial.hparams))
    return trial


def _intend(folder: ExperimentFolder, config: ExperimentConfig, trial: CreateTrial) -> RunInfo:
    request = RunRequest(trial_id=trial.trial_id, run=0, trial_seed=trial.seed, hparams=trial.hparams)
    info = local_run_info(config, request, folder, folder.header())
    folder.prepare_run(info)
    folder.record(journal.RunIntended(trial_id=trial.trial_id, run=0))
    return info


def _start(
    folder: ExperimentFolder,
    config: ExperimentConfig,
    trial: CreateTrial,
    environ: Mapping[str, str],
    lease_descriptor: int,
) -> subprocess.Popen[bytes]:
    info = _intend(folder, config, trial)
    with file_errors(folder.log_file), folder.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ENTRY)],
            env={**environ, **variables(config), RUN_DIR_VARIABLE: info.run_dir},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it is in the run's folder
            stderr=log,
            pass_fds=(lease_descriptor,),  # while it lives the experiment is held, whatever becomes of us
            start_new_session=True,  # Ctrl-C is for us
        )
    folder.record(journal.RunCreated(trial_id=trial.trial_id, run=0, container=""))
    return process


def _watch(process: subprocess.Popen[bytes], events: ExperimentTail, emit: Emit) -> None:
    """Tell what happens until the process has ended; pass on what a person asks for."""
    sent = ""
    while process.poll() is None:
        try:
            events.emit(emit)
            sent = _pass_on(events.folder.requested(), sent, process)
            time.sleep(_POLL)
        except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time, and is a request)
            events.folder.request("kill" if sent else "cancel")
    events.emit(emit)


def _pass_on(verb: str, sent: str, process: subprocess.Popen[bytes]) -> str:
    if verb != sent:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, _SIGNALS[verb])
    return verb
