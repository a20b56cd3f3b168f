"""Runs one trial to its end, and records whatever user code raises."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from determined import LOG_FORMAT
from determined._contract.errors import HarnessError, StorageError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import ExitCode, RunInfo
from determined._run.exit import end_in_time
from determined._run.launched import is_consequence, launch_directory, launched_group, on_sigterm, report_end
from determined._run.outcome import Outcome, failed, finished, place_of, user_trace
from determined._run.processes import Rank
from determined._run.run import ChiefRun, SharedRun
from determined._trial.frameworks import runner_of
from determined._trial.load import load_trial_class

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run the trial of `run.json`, then exit."""
    info = RunInfo.from_environ(os.environ)
    assert info is not None, "the supervisor sets the run folder"
    if named := sys.argv[1:]:
        info = replace(info, entrypoint=named[0])
    assert isinstance(info.entrypoint, str), "the supervisor runs other commands itself"
    show_logs(info)
    show_stacks(info)
    os.chdir(info.context_dir)
    sys.argv = [info.entrypoint]
    codes: list[int] = []
    end_in_time(info.exit_timeout, lambda: codes[0] if codes else None)
    codes.append(run_trial(info).exit_code)
    return codes[0]


def show_logs(info: RunInfo) -> None:
    """Show log messages of level INFO and above, or all of them with `debug: true` in the config."""
    level = logging.DEBUG if info.config.get("debug") else logging.INFO
    logging.basicConfig(level=level, format=LOG_FORMAT)


def show_stacks(info: RunInfo, *, every: float = 30.0) -> None:
    """Dump the stacks of all threads on a crash and on SIGUSR1.

    With `debug: true` in the config, also every `every` seconds.
    """
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if info.config.get("debug"):
        faulthandler.dump_traceback_later(every, repeat=True)


def run_trial(
    info: RunInfo, trial_class: type | None = None, *, load: Callable[[], type] | None = None
) -> Outcome:
    """Run a trial in this process, with the same records and checkpoints as in a container.

    Args:
        info: `run_dir` must exist.
        trial_class: by default the class that `info.entrypoint` names.
        load: returns the class instead, in stage IMPORT, where its errors are recorded.
    """
    context_dir = Path(info.context_dir).resolve()
    chief: ChiefRun | None = None
    try:
        rank = Rank.from_environ(os.environ) if launch_directory() else None
        chief = ChiefRun(info) if rank is None or rank.is_chief else None
        run = chief if chief and rank is None else SharedRun(info, launched_group(), chief)
    except HarnessError as error:
        return _report(chief, failed(error, None, context_dir), info)
    with on_sigterm(chief.ask_to_stop if chief else lambda: None):
        load = load or (lambda: trial_class or _named(info, context_dir))
        outcome = _conduct(run, chief, load, context_dir)
        return _report(chief, outcome, info, rank=run.group.rank)


def _report(chief: ChiefRun | None, outcome: Outcome, info: RunInfo, *, rank: int = 0) -> Outcome:
    context_dir = Path(info.context_dir).resolve()
    try:
        report_end(chief, outcome, rank=rank)
    except StorageError as error:
        outcome = failed(error, outcome.ended.stage, context_dir)
    return _show(outcome, context_dir, info)


def _named(info: RunInfo, context_dir: Path) -> type:
    return load_trial_class(str(info.entrypoint), context_dir, info.context_name)


def _conduct(
    run: ChiefRun | SharedRun, chief: ChiefRun | None, load: Callable[[], type], context_dir: Path
) -> Outcome:
    try:
        run.enter(Stage.IMPORT)
        trial_class = load()
        runner = runner_of(trial_class)
        if run is not chief and getattr(trial_class, "_one_process", False):
            if chief is None:
                return finished(ExitReason.COMPLETED)
            run = chief
        return finished(runner(trial_class, run))
    except BaseException as error:  # noqa: BLE001  (user code may raise anything, even SystemExit; all of it is recorded)
        return failed(error, run.stage, context_dir)


def _error_to_trace(error: BaseException, context_dir: Path) -> BaseException | None:
    """Return the error with a useful traceback: user code's, not the harness's own."""
    if not isinstance(error, HarnessError):
        return error
    cause = error.__cause__
    theirs = cause is not None and (isinstance(cause, SyntaxError) or place_of(cause, context_dir))
    return cause if theirs else None


def _show(outcome: Outcome, context_dir: Path, info: RunInfo) -> Outcome:
    """Print the traceback of user code, unless the last run printed it, with cause and hint."""
    error, ended = outcome.error, outcome.ended
    if error is None or not ended.reason.failed:
        return outcome
    root = _error_to_trace(error, context_dir)
    if ended.failure and ended.failure == info.last_failure:
        sys.stderr.write(f"same error as in run {info.run - 1}, which has the traceback")
        sys.stderr.write(f" ({info.failed_alike + 1} runs in a row)\n")
    elif root is not None and outcome.exit_code is not ExitCode.INTERRUPTED and not is_consequence(error):
        traceback.print_exception(type(root), root, user_trace(root, context_dir))
    stage = f" in stage {ended.stage.value}" if ended.stage else ""
    hint = f"\n  hint: {ended.hint}" if ended.hint else ""
    sys.stderr.write(f"error{stage}: {ended.message}{hint}\n")
    return outcome
