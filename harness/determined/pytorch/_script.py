"""The run that a script trains in: the one it was started for, or its own when somebody runs it by hand."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from determined._chief import ChiefRun
from determined._errors import InvalidHP
from determined._outcome import failed, finished
from determined._records import ExitReason
from determined._run_info import RunInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOG = logging.getLogger("determined")
_HOME = Path(".local", "share", "detbuild", "scripts")


class ScriptRun(ChiefRun):
    """A run of a script that nobody supervises: what it reports is also logged."""

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        super().report_training(steps_completed, metrics)
        _LOG.info("training, %d batches: %s", steps_completed, _shown(metrics))

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        super().report_validation(steps_completed, metrics)
        _LOG.info("validation, %d batches: %s", steps_completed, _shown(metrics))


class Holder:
    """A run, and how the script's training in it ended."""

    def __init__(self, run: ChiefRun, *, supervised: bool) -> None:
        self.run = run
        self.supervised = supervised
        self.reason = ExitReason.COMPLETED


@contextmanager
def script_run(hparams: Mapping[str, object] | None, config: Mapping[str, object] | None) -> Iterator[Holder]:
    """Open the run of this process, and write its last record when the block ends.

    InvalidHP ends the block and the run, and not the script. Outside a run messages of level INFO are shown,
    unless the script has set up logging.
    """
    info = RunInfo.from_environ(os.environ)
    supervised = info is not None
    run = ChiefRun(info) if info is not None else ScriptRun(_own_info(hparams, config))
    holder = Holder(run, supervised=supervised)
    context_dir = Path(run.info.context_dir)
    try:
        with _stopped_by_sigterm(run):
            yield holder
    except InvalidHP as error:
        _LOG.warning("these hyperparameters cannot work: %s", error)
        run.end(failed(error, run.stage, context_dir).ended)
    except BaseException as error:
        run.end(failed(error, run.stage, context_dir).ended)
        raise
    else:
        run.end(finished(holder.reason).ended)


def _own_info(hparams: Mapping[str, object] | None, config: Mapping[str, object] | None) -> RunInfo:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    folder = Path.home() / _HOME / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    _LOG.info("metrics and checkpoints are kept in %s", folder)
    here = Path.cwd()
    return RunInfo(
        experiment_id=0,
        trial_id=0,
        run=0,
        trial_seed=torch.initial_seed(),  # the script seeds, if anybody does
        slots=int(torch.cuda.is_available()),
        entrypoint="",
        run_dir=str(folder),
        context_dir=str(here),
        context_name=here.name,
        checkpoint_dir=str(folder / "checkpoints"),
        hparams=dict(hparams or {}),
        config=dict(config or {}),
    )


@contextmanager
def _stopped_by_sigterm(run: ChiefRun) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda _number, _frame: run.ask_to_stop())
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that Python did not install cannot be put back
            signal.signal(signal.SIGTERM, previous)


def _shown(metrics: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in metrics.items()
    )
