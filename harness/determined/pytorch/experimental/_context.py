"""The context of a batch processor: its device, reducers and output directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from determined._contract.checkpoints import storage_errors, sync_directory
from determined.pytorch._device import to_device
from determined.pytorch._reducers import FunctionReducer, MetricReducer, Reducers, Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from determined.core import Context
    from determined.pytorch._types import Untyped

_DRAFT = ".draft-"  # hidden: not output yet
_Model = TypeVar("_Model", bound=torch.nn.Module)


class TorchBatchProcessorContext:
    """The context of one process of the job.

    Args:
        core_context: of the run.
        storage_path: output directory of the job.
        device: of this process.
    """

    def __init__(
        self, core_context: Context, storage_path: str | Path, device: torch.device | None = None
    ) -> None:
        self._core, self._storage = core_context, Path(storage_path)
        self.device = device or torch.device("cpu")
        self.distributed = core_context.distributed
        self.reducers: dict[str, Reducers] = {}  # by metric group
        self.states: list[MetricReducer] = []  # all of them, in wrapping order

    def to_device(
        self,
        data: Untyped,
        warned_types: set[type] | None = None,  # noqa: ARG002  (Determined's own signature)
    ) -> Untyped:
        """Move tensors and numeric arrays in nested dicts, lists and tuples to the device."""
        return to_device(data, self.device)

    def prepare_model_for_inference(self, model: _Model) -> _Model:
        """Move a model to the device and set eval mode."""
        model.eval()
        return model.to(self.device)

    def get_distributed_rank(self) -> int:
        return self.distributed.rank

    def get_distributed_size(self) -> int:
        return self.distributed.size

    def get_tensorboard_path(self) -> Path:
        return self._core.train.get_tensorboard_path()

    def prepare_storage(self) -> None:
        """Delete drafts of interrupted processes, before any process starts."""
        with storage_errors("the output of a batch processor", self._storage):
            self._storage.mkdir(parents=True, exist_ok=True)
        if self.distributed.rank == 0:
            for draft in self._storage.glob(f"{_DRAFT}*"):
                shutil.rmtree(draft, ignore_errors=True)
        self.distributed.broadcast(None)

    @contextmanager
    def upload_path(self) -> Iterator[Path]:
        """Return an empty directory; after the block its files are moved atomically to the job's output.

        All processes share one output: a file with an existing name replaces it.
        """
        with (
            storage_errors("the output of a batch processor", self._storage),
            # on the target's file system, so that a rename publishes each file
            tempfile.TemporaryDirectory(prefix=_DRAFT, dir=self._storage) as directory,
        ):
            yield Path(directory)
            _publish(Path(directory), self._storage)

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        """Report metrics; only rank 0 does so."""
        self._core.train.report_metrics(group, steps_completed, metrics)

    def report_task_using_checkpoint(self, checkpoint: object) -> None:
        self._core.experimental.report_task_using_checkpoint(checkpoint)

    def report_task_using_model_version(self, model_version: object) -> None:
        self._core.experimental.report_task_using_model_version(model_version)

    def wrap_reducer(
        self,
        reducer: MetricReducer | Callable[[list[Untyped]], Untyped],
        name: str | None = None,
        group: str = "inference",
    ) -> MetricReducer:
        """Reduce over all batches of all processes, and report at the end of the job.

        Args:
            reducer: a MetricReducer, or a function of the list of all values passed to `update`.
            name: of the metric; None if the reducer returns a dict.
            group: the metric group to report.
        """
        made = reducer if isinstance(reducer, MetricReducer) else FunctionReducer(reducer)
        group_reducers = self.reducers.setdefault(group, Reducers(self.distributed))
        group_reducers.add(Wrapped(reducer=made, name=name, for_training=False, for_validation=True))
        made.reset()
        self.states.append(made)
        return made


def _publish(draft: Path, storage: Path) -> None:
    for path in sorted(path for path in draft.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target = storage / path.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        sync_directory(target.parent)
