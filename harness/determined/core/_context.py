"""`core.init`: the contexts of the Core API for a `with` block.

Preemption tells the script to checkpoint and exit. Reports to Determined's master are logged instead, and the
profiler is accepted for compatibility.
"""

from __future__ import annotations

import enum
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.records import ExitReason
from determined._run.info import cluster_info
from determined._run.script import RunOptions, script_run
from determined.core._checkpoint import CheckpointContext
from determined.core._searcher import SearcherContext
from determined.core._train import TrainContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._run.info import ClusterInfo
    from determined._run.processes import DistributedContext
    from determined._run.script import RunHandle

_LOG = logging.getLogger("determined.core")


class PreemptMode(enum.Enum):
    """How several processes learn of a preemption."""

    WorkersAskChief = "WORKERS_ASK_CHIEF"  # all call together and get rank 0's answer
    ChiefOnly = "CHIEF_ONLY"  # only rank 0 may call
    WorkersAskMaster = "WORKERS_ASK_MASTER"  # each calls independently; the answers may differ for a moment


class PreemptContext:
    """Preemption by SIGTERM, from `detbuild cancel` or `docker stop`."""

    def __init__(self, handle: RunHandle, mode: PreemptMode) -> None:
        self._handle, self._mode = handle, mode

    def should_preempt(self, auto_ack: bool = True) -> bool:  # noqa: FBT001, FBT002  (Determined's own signature)
        """Whether to checkpoint and exit. All processes call it at the same point, depending on the mode.

        Args:
            auto_ack: assume that the script will exit after True, so that it ends as preempted.

        Raises:
            RuntimeError: a rank other than 0 calls in mode ChiefOnly.
        """
        distributed, asked = self._handle.distributed, self._handle.stop_asked
        if self._mode is PreemptMode.ChiefOnly and distributed.rank:
            raise RuntimeError(
                f"rank {distributed.rank} called should_preempt, but preempt_mode is ChiefOnly: "
                "call it on rank 0 only, or do not pass preempt_mode to core.init"
            )
        if self._mode is PreemptMode.WorkersAskChief:
            asked = distributed.broadcast(asked)
        if asked and auto_ack:
            self.acknowledge_preemption_signal()
        return asked

    def acknowledge_preemption_signal(self) -> None:
        """Acknowledge that the script will save and exit."""
        self._handle.reason = ExitReason.PREEMPTED


class TensorboardMode(enum.Enum):
    """Accepted for compatibility: files on the TensorBoard path are always in the run's folder."""

    AUTO = "AUTO"
    MANUAL = "MANUAL"


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The contexts of the Core API."""

    distributed: DistributedContext
    train: TrainContext
    checkpoint: CheckpointContext
    preempt: PreemptContext
    searcher: SearcherContext
    profiler: ProfilerContext
    experimental: ExperimentalCoreContext
    info: ClusterInfo | None  # of the run; None in a script run by hand

    def alert(self, title: str | None = None, description: str | None = None, level: str = "info") -> None:
        """Log the alert: there is no webhook."""
        self.experimental.alert(title or "alert", description or "", level)


@contextmanager
def init(
    *,
    distributed: DistributedContext | None = None,
    checkpoint_storage: str | Mapping[str, object] | None = None,
    preempt_mode: PreemptMode = PreemptMode.WorkersAskChief,
    tensorboard_mode: TensorboardMode = TensorboardMode.AUTO,  # noqa: ARG001  (files need no sending)
) -> Iterator[Context]:
    """Open the run of this script, or a new one if the script runs by hand.

    `InvalidHP` raised inside ends the block and the run, without a failure.

    Args:
        distributed: the processes of the trial; None means those of the launcher.
        checkpoint_storage: a directory, or a config's `checkpoint_storage` with a path of the host; only for
            scripts run by hand.
        preempt_mode: how processes learn that they have to stop.
        tensorboard_mode: has no effect.
    """
    options = RunOptions(distributed=distributed, checkpoint_dir=_directory(checkpoint_storage))
    with script_run(options) as handle:
        yield opened(handle, preempt_mode)


def opened(handle: RunHandle, preempt_mode: PreemptMode = PreemptMode.WorkersAskChief) -> Context:
    """Return the contexts of the Core API for an open run."""
    preempt = PreemptContext(handle, preempt_mode)
    return Context(
        distributed=handle.distributed,
        train=TrainContext(handle),
        checkpoint=CheckpointContext(handle),
        preempt=preempt,
        searcher=SearcherContext(handle),
        profiler=ProfilerContext(),
        experimental=ExperimentalCoreContext(),
        info=cluster_info(handle.info) if handle.supervised else None,
    )


def _directory(storage: str | Mapping[str, object] | None) -> str | None:
    if storage is None or isinstance(storage, str):
        return storage
    found = (storage.get(key) for key in ("container_path", "host_path"))
    base = next((str(path) for path in found if path), None)
    inner = storage.get("storage_path")
    return str(Path(base, str(inner))) if base and inner else base


class ExperimentalCoreContext:
    def report_task_using_checkpoint(self, checkpoint: object) -> None:
        _LOG.info("the script uses checkpoint %s", getattr(checkpoint, "uuid", checkpoint))

    def report_task_using_model_version(self, model_version: object) -> None:
        _LOG.info("the script uses model version %s", model_version)

    def alert(self, title: str = "", description: str = "", level: str = "info") -> None:
        """Log the alert: there is no webhook."""
        _LOG.warning("%s: %s: %s", level, title, description)


class ProfilerContext:
    """A profiler without effect: on the host, `docker stats` and `nvidia-smi` show system metrics."""

    def on(self, sampling_interval: float = 1, samples_per_report: int = 10) -> None:  # noqa: ARG002
        _LOG.info("profiler.on has no effect: use docker stats and nvidia-smi on the host")

    def off(self) -> None: ...
