"""The run of a script: the one that started it, or a new one when the script runs by hand."""

from __future__ import annotations

import logging
import os
import reprlib
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidHP, explain
from determined._contract.run_info import RunInfo, home_of
from determined._run.exit import end_in_time
from determined._run.launched import on_sigterm, prepare_rank, report_end
from determined._run.outcome import failed, finished
from determined._run.processes import DistributedContext, Rank
from determined._run.run import ChiefRun, SharedRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._contract.records import ExitReason
    from determined._run.outcome import Outcome

_LOG = logging.getLogger("determined")
_READABLE = 0.2  # seconds between two lines of training metrics
_MOST_SHOWN = 20  # metrics in a line
_LONGEST_VALUE = 80  # characters


class ScriptRun(ChiefRun):
    """A run of an unsupervised script: its reports are also logged, at a readable rate."""

    _logged = -_READABLE  # when training metrics were logged last

    def report_training(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        super().report_training(steps_completed, metrics)
        self._log(steps_completed, metrics)

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        super().report_windows(found)
        self._log(*found[-1])

    def _log(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        now = time.monotonic()
        if now - self._logged >= _READABLE:
            self._logged = now
            _LOG.info("training, %d batches: %s", steps_completed, shown(metrics))

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        super().report_validation(steps_completed, metrics)
        _LOG.info("validation, %d batches: %s", steps_completed, shown(metrics))

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        super().report_metrics(group, steps_completed, metrics)
        _LOG.info("%s, %d batches: %s", group, steps_completed, shown(metrics))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What a script specifies for its run; in a run of detbuild the experiment does."""

    hparams: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    distributed: DistributedContext | None = None
    checkpoint_dir: str | None = None
    seed: int = 0
    slots: int = 0
    begin: Callable[[], RunInfo] | None = None  # creates the run outside of detbuild, instead of this module


class RunHandle:
    """A run in one process of a script, and how the script's training in it ended."""

    def __init__(
        self, info: RunInfo, distributed: DistributedContext, chief: ChiefRun | None, *, supervised: bool
    ) -> None:
        self.info, self.distributed, self.chief = info, distributed, chief
        self.supervised = supervised
        alone = chief if distributed.size == 1 else None
        self.run: ChiefRun | SharedRun = alone or SharedRun(info, distributed.group, chief)
        self.reason: ExitReason | None = None  # None: the script continues, and its exit code decides
        self.stop_asked = False

    def ask_to_stop(self) -> None:
        self.stop_asked = True
        if self.chief:
            self.chief.ask_to_stop()


@contextmanager
def script_run(options: RunOptions) -> Iterator[RunHandle]:
    """Open the run of this process, and write its last record after the block.

    InvalidHP ends the block and the run, but not the script. Outside a run, messages of level INFO are shown
    unless the script has set up logging.
    """
    handle = _opened(options)
    context_dir = Path(handle.info.context_dir)
    try:
        with on_sigterm(handle.ask_to_stop):
            yield handle
    except InvalidHP as error:
        _LOG.warning("these hyperparameters cannot work: %s", error)
        _close(handle, failed(error, handle.run.stage, context_dir))
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:  # a normal exit
            _close(handle, _end_of(handle))
        else:
            _close(handle, failed(error, handle.run.stage, context_dir))
            explain(error)
        raise
    else:
        _close(handle, _end_of(handle))


def _end_of(handle: RunHandle) -> Outcome | None:
    return finished(handle.reason) if handle.reason else None


def _opened(options: RunOptions) -> RunHandle:
    distributed = options.distributed or _distributed()
    if distributed.size > 1:
        prepare_rank(distributed.rank)
    info = RunInfo.from_environ(os.environ)
    supervised = info is not None
    if info is None:
        info = distributed.broadcast(_begun(options) if distributed.rank == 0 else None)
    assert info is not None
    if supervised:
        end_in_time(info.exit_timeout)
    kind = ChiefRun if supervised else ScriptRun
    chief = kind(info) if distributed.rank == 0 else None
    return RunHandle(info, distributed, chief, supervised=supervised)


def _distributed() -> DistributedContext:
    """Return the context of the launcher's processes, or of this one alone without a launcher."""
    rank = Rank.from_environ(os.environ)
    several = rank is not None and rank.size > 1
    return DistributedContext.from_torch_distributed() if several else DistributedContext.alone()


def _close(handle: RunHandle, outcome: Outcome | None) -> None:
    if outcome is not None:
        report_end(handle.chief, outcome, rank=handle.distributed.rank)
    elif handle.chief is not None:
        handle.chief.close()


def _begun(options: RunOptions) -> RunInfo:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return options.begin() if options.begin else _own_info(options)


def _own_info(options: RunOptions) -> RunInfo:
    folder = home_of(os.environ) / "scripts" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(mode=0o700, exist_ok=True)
    _LOG.info("metrics and checkpoints are kept in %s", folder)
    here = Path.cwd()
    return RunInfo(
        experiment_id=0,
        trial_id=0,
        run=0,
        trial_seed=options.seed,
        slots=options.slots,
        entrypoint="",
        run_dir=str(folder),
        context_dir=str(here),
        context_name=here.name,
        checkpoint_dir=options.checkpoint_dir or str(folder / "checkpoints"),
        hparams=dict(options.hparams),
        config=dict(options.config),
    )


def shown(metrics: Mapping[str, object]) -> str:
    """Return metrics in one line of bounded length; records have all of them."""
    texts = [f"{name} {_short(value)}" for name, value in islice(metrics.items(), _MOST_SHOWN)]
    more = len(metrics) - len(texts)
    return ", ".join(texts) + (f", ... and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return reprlib.repr(value) if isinstance(value, (list, tuple, dict)) else str(value)[:_LONGEST_VALUE]
