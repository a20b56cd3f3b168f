"""Runs one trial to its end: the outermost boundary, where whatever user code raises becomes a record."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from determined._chief import ChiefRun
from determined._errors import HarnessError, InvalidTrialError, StorageError
from determined._exit_codes import ExitCode
from determined._load import load_trial_class
from determined._outcome import Outcome, failed, finished
from determined._records import ExitReason, Stage
from determined._run_info import RunInfo
from determined._user_code import user_trace

Runner = Callable[[type, ChiefRun], ExitReason]


def main() -> int:
    """Run what `run.json` asks for, as the only thing this process does."""
    info = RunInfo.from_environ(os.environ)
    assert info is not None, "the supervisor sets the run folder"
    assert isinstance(info.entrypoint, str), "the supervisor runs other commands itself"
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.chdir(info.context_dir)
    sys.argv = [info.entrypoint]
    return run_trial(info).exit_code


def run_trial(
    info: RunInfo, trial_class: type | None = None, *, load: Callable[[], type] | None = None
) -> Outcome:
    """Run a trial in this process, with the same records and checkpoints as in a container.

    Args:
        info: `run_dir` has to exist.
        trial_class: by default the class that `info.entrypoint` names.
        load: gives the class instead, in stage IMPORT: what it raises ends the run as such.
    """
    context_dir = Path(info.context_dir).resolve()
    try:
        run = ChiefRun(info)
    except StorageError as error:
        return _shown(failed(error, None, context_dir), context_dir)
    try:
        with _stopped_by_sigterm(run):
            outcome = _conduct(run, load or (lambda: trial_class or _named(info, context_dir)), context_dir)
        run.end(outcome.ended)
    except StorageError as error:
        outcome = failed(error, run.stage, context_dir)
    return _shown(outcome, context_dir)


def _named(info: RunInfo, context_dir: Path) -> type:
    return load_trial_class(str(info.entrypoint), context_dir, info.context_name)


def _conduct(run: ChiefRun, load: Callable[[], type], context_dir: Path) -> Outcome:
    try:
        run.enter(Stage.IMPORT)
        trial_class = load()
        runner = _runner_of(trial_class)
        return finished(runner(trial_class, run))
    except BaseException as error:  # noqa: BLE001  (user code may raise anything, SystemExit too; all of it is told)
        return failed(error, run.stage, context_dir)


def _runner_of(trial_class: type) -> Runner:
    module, _, function = getattr(trial_class, "_runner", "").partition(":")
    if not function:
        raise InvalidTrialError(
            f"{trial_class.__name__} is a Trial of no framework",
            mend="derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial",
        )
    runner: Runner = getattr(importlib.import_module(module), function)
    return runner


@contextmanager
def _stopped_by_sigterm(run: ChiefRun) -> Iterator[None]:
    """SIGTERM asks the run to leave. Only a main thread can set handlers; another one does without."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda _number, _frame: run.ask_to_stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _shown(outcome: Outcome, context_dir: Path) -> Outcome:
    """Write to stderr what a person needs: the trace into user code, then cause and mend."""
    error, ended = outcome.error, outcome.ended
    if error is None or not ended.reason.failed:
        return outcome
    root = error.__cause__ if isinstance(error, HarnessError) else error
    if root is not None and outcome.exit_code is not ExitCode.INTERRUPTED:
        traceback.print_exception(type(root), root, user_trace(root, context_dir))
    stage = f" in stage {ended.stage.value}" if ended.stage else ""
    mend = f"\n  mend: {ended.mend}" if ended.mend else ""
    sys.stderr.write(f"error{stage}: {ended.message}{mend}\n")
    return outcome
