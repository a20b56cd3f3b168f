"""`core.init`: the contexts of the Core API for a `with` block."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._info import cluster_info
from determined._script import RunOptions, script_run
from determined.core._checkpoint import CheckpointContext
from determined.core._experimental import ExperimentalCoreContext
from determined.core._preempt import PreemptContext, PreemptMode
from determined.core._profiler import ProfilerContext
from determined.core._searcher import SearcherContext
from determined.core._train import TrainContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._distributed import DistributedContext
    from determined._info import ClusterInfo
    from determined._script import RunHandle


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
