"""The run that a script trains in: the one it was started for, or its own when somebody runs it by hand."""

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

from determined._chief import ChiefRun
from determined._distributed import DistributedContext
from determined._errors import InvalidHP, explain
from determined._home import home_of
from determined._launched import on_sigterm, say, settle
from determined._leaving import end_in_time
from determined._outcome import failed, finished
from determined._ranks import Rank
from determined._run_info import RunInfo
from determined._shared_run import SharedRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._outcome import Outcome
    from determined._records import ExitReason

_LOG = logging.getLogger("determined")
_READABLE = 0.2  # seconds between two lines of training metrics
_MOST_SHOWN = 20  # metrics in a line
_LONGEST_VALUE = 80  # characters


class ScriptRun(ChiefRun):
    """A run of a script that nobody supervises: what it reports is also logged, as far as one can read it."""

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
class Wish:
    """What a script says of its run; in a run of detbuild the experiment says it."""

    hparams: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    distributed: DistributedContext | None = None
    checkpoint_dir: str | None = None
    seed: int = 0
    slots: int = 0
    begin: Callable[[], RunInfo] | None = None  # makes the run where there is none, instead of this module


class Holder:
    """A run as one process of a script sees it, and how the script's training in it ended."""

    def __init__(
        self, info: RunInfo, distributed: DistributedContext, chief: ChiefRun | None, *, supervised: bool
    ) -> None:
        self.info, self.distributed, self.chief = info, distributed, chief
        self.supervised = supervised
        alone = chief if distributed.size == 1 else None
        self.run: ChiefRun | SharedRun = alone or SharedRun(info, distributed.group, chief)
        self.reason: ExitReason | None = None  # None: the script goes on, and its exit code will tell
        self.stop_asked = False

    def ask_to_stop(self) -> None:
        self.stop_asked = True
        if self.chief:
            self.chief.ask_to_stop()


@contextmanager
def script_run(wish: Wish) -> Iterator[Holder]:
    """Open the run of this process, and write its last record when the block ends.

    InvalidHP ends the block and the run, and not the script. Outside a run messages of level INFO are shown,
    unless the script has set up logging.
    """
    holder = _opened(wish)
    context_dir = Path(holder.info.context_dir)
    try:
        with on_sigterm(holder.ask_to_stop):
            yield holder
    except InvalidHP as error:
        _LOG.warning("these hyperparameters cannot work: %s", error)
        _close(holder, failed(error, holder.run.stage, context_dir))
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:  # a script may end so, and has not failed
            _close(holder, _end_of(holder))
        else:
            _close(holder, failed(error, holder.run.stage, context_dir))
            explain(error)
        raise
    else:
        _close(holder, _end_of(holder))


def _end_of(holder: Holder) -> Outcome | None:
    return finished(holder.reason) if holder.reason else None


def _opened(wish: Wish) -> Holder:
    distributed = wish.distributed or _distributed()
    if distributed.size > 1:
        settle(distributed.rank)
    info = RunInfo.from_environ(os.environ)
    supervised = info is not None
    if info is None:
        info = distributed.broadcast(_begun(wish) if distributed.rank == 0 else None)
    assert info is not None
    if supervised:
        end_in_time(info.exit_timeout)
    kind = ChiefRun if supervised else ScriptRun
    chief = kind(info) if distributed.rank == 0 else None
    return Holder(info, distributed, chief, supervised=supervised)


def _distributed() -> DistributedContext:
    """Of the processes that a launcher has started; of this one alone where none has."""
    rank = Rank.from_environ(os.environ)
    several = rank is not None and rank.size > 1
    return DistributedContext.from_torch_distributed() if several else DistributedContext.alone()


def _close(holder: Holder, outcome: Outcome | None) -> None:
    if outcome is not None:
        say(holder.chief, outcome, rank=holder.distributed.rank)
    elif holder.chief is not None:
        holder.chief.close()


def _begun(wish: Wish) -> RunInfo:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return wish.begin() if wish.begin else _own_info(wish)


def _own_info(wish: Wish) -> RunInfo:
    folder = home_of(os.environ) / "scripts" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(mode=0o700, exist_ok=True)
    _LOG.info("metrics and checkpoints are kept in %s", folder)
    here = Path.cwd()
    return RunInfo(
        experiment_id=0,
        trial_id=0,
        run=0,
        trial_seed=wish.seed,
        slots=wish.slots,
        entrypoint="",
        run_dir=str(folder),
        context_dir=str(here),
        context_name=here.name,
        checkpoint_dir=wish.checkpoint_dir or str(folder / "checkpoints"),
        hparams=dict(wish.hparams),
        config=dict(wish.config),
    )


def shown(metrics: Mapping[str, object]) -> str:
    """In one line of bounded length; records have all of it."""
    texts = [f"{name} {_short(value)}" for name, value in islice(metrics.items(), _MOST_SHOWN)]
    more = len(metrics) - len(texts)
    return ", ".join(texts) + (f", ... and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return reprlib.repr(value) if isinstance(value, (list, tuple, dict)) else str(value)[:_LONGEST_VALUE]
