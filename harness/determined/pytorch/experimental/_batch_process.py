"""`torch_batch_process`: process every batch of a data set once, resumable, with all processes.

A process takes every N-th batch, in the order of the data set, so each record is processed once. The state
of reducers is in the checkpoints.
"""

from __future__ import annotations

import abc
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.utils.data

from determined._contract.checkpoints import read_metadata, storage_errors, sync_directory
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._run.script import RunHandle, RunOptions, script_run
from determined.core._context import opened
from determined.pytorch._checkpoint import freeze, thaw
from determined.pytorch._device import choose_device, process_group, to_device
from determined.pytorch._metrics import FunctionReducer, MetricReducer, Reducers, Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._run.processes import DistributedContext
    from determined.core import Context
    from determined.pytorch._device import Untyped

_LOG = logging.getLogger(__name__)
_OUTPUT = "batch-output"  # below the checkpoints, which outlive the container
_DRAFT = ".draft-"  # hidden: not output yet
_Model = TypeVar("_Model", bound=torch.nn.Module)
_UNSUPPORTED = {
    "dataset": "pass it as dataset",
    "sampler": "sort the data set itself: records are processed in its order",
    "batch_sampler": "sort the data set itself: records are processed in its order",
    "shuffle": "remove it: a resumed job needs a fixed order",
}


def torch_batch_process(  # noqa: PLR0917  (Determined's own signature)
    batch_processor_cls: type[TorchBatchProcessor],
    dataset: torch.utils.data.Dataset[Any],
    batch_size: int | None = None,
    max_batches: int | None = None,
    checkpoint_interval: int = 5,
    dataloader_kwargs: Mapping[str, Any] | None = None,
    distributed_context: DistributedContext | None = None,
) -> None:
    """Shard the batches of a data set over all processes, and process each batch once.

    Progress is checkpointed; an interrupted job continues after the last checkpoint.

    Args:
        batch_processor_cls: a subclass of TorchBatchProcessor.
        dataset: with `__getitem__` and `__len__`; read in its own order.
        batch_size: records per batch; default: from dataloader_kwargs, or 1.
        max_batches: per process; default: all.
        checkpoint_interval: batches of each process between two checkpoints.
        dataloader_kwargs: for torch's DataLoader; no samplers and no shuffling.
        distributed_context: the processes of the job; None uses those started by a launcher.

    Raises:
        InvalidTrialError: an argument is not valid.
        CheckpointError: the last checkpoint is from another number of processes.
    """
    if not isinstance(batch_processor_cls, type) or not issubclass(batch_processor_cls, TorchBatchProcessor):
        raise InvalidTrialError(
            f"torch_batch_process got {batch_processor_cls!r}, not a subclass of TorchBatchProcessor",
            hint="pass a class derived from determined.pytorch.experimental.TorchBatchProcessor",
        )
    options = dict(dataloader_kwargs or {})
    gpu = torch.cuda.is_available()
    with script_run(RunOptions(distributed=distributed_context, slots=int(gpu))) as handle:
        shard = _plan_shard(
            dataset,
            batch_size=batch_size,
            max_batches=1 if handle.info.test_mode else max_batches,
            options=options,
            rank=handle.distributed.rank,
            size=handle.distributed.size,
        )
        interval = _positive(checkpoint_interval, "checkpoint_interval")
        device = choose_device(handle.info.slots, handle.distributed)
        with process_group(handle.distributed.group, device):
            core = opened(handle)
            context = TorchBatchProcessorContext(core, _output(handle), device)
            context.prepare_storage()
            processor = batch_processor_cls(context)
            kept = {key: value for key, value in options.items() if key not in {"batch_size", "drop_last"}}
            _Job(handle, core, context, processor, shard, interval).run(dataset, kept)


def _output(handle: RunHandle) -> Path:
    return Path(handle.info.checkpoint_dir) / _OUTPUT / str(handle.info.trial_id)


@dataclass(slots=True)
class _Job:
    handle: RunHandle
    core: Context
    context: TorchBatchProcessorContext
    processor: TorchBatchProcessor
    shard: Shard
    interval: int
    done: int = 0  # batches of each process
    stored: int = 0

    def run(self, dataset: torch.utils.data.Dataset[Any], options: dict[str, Any]) -> None:
        self._resume()
        sampler = _RemainingBatches(self.shard, self.done)
        batches = iter(torch.utils.data.DataLoader(dataset, batch_sampler=sampler, **options))
        for _ in range(self.done, self.shard.rounds):
            self._next(batches)
            if self._due() and self._leave():
                return
        if self.stored < self.done:
            self._checkpoint()
        self.processor.on_finish()
        self._report()

    def _next(self, batches: Iterator[Any]) -> None:
        """Process the next batch; in the last round there may be none for this process."""
        nothing = object()
        batch = next(batches, nothing)
        if batch is not nothing:
            self.processor.process_batch(batch, self.done)
        self.done += 1

    def _due(self) -> bool:
        """Whether to checkpoint and check for preemption, which costs an exchange between processes."""
        alone = self.shard.size == 1
        return self.done % self.interval == 0 or (alone and self.handle.stop_asked)

    def _leave(self) -> bool:
        self._checkpoint()
        self.core.train.report_progress(self.done / self.shard.rounds)
        return self.core.preempt.should_preempt()

    def _checkpoint(self) -> None:
        self.processor.on_checkpoint_start()
        metadata = {"steps_completed": self.done, "batch_processor": self._name, "processes": self.shard.size}
        with self.core.checkpoint.store_path(metadata, shard=True) as (path, _):
            if self.context.states:
                save(self.context.states, path / self._reducers_file)
        self.stored = self.done

    def _resume(self) -> None:
        found = None if self.handle.info.warm_start else self.handle.run.open_checkpoint()
        metadata = read_metadata(found[0]) if found else {}
        if found is None or metadata.get("batch_processor") != self._name:
            return
        if metadata.get("processes") != self.shard.size:
            raise CheckpointError(
                f"the job was started with {metadata.get('processes')} processes, but now has "
                f"{self.shard.size}",
                hint="use the same number of slots as before, or start a new experiment",
            )
        self.done = self.stored = int(str(metadata["steps_completed"]))
        if self.context.states:
            load(self.context.states, found[0] / self._reducers_file)
        _LOG.info("continuing after batch %d of %d", self.done, self.shard.rounds)

    def _report(self) -> None:
        for group, reducers in self.context.reducers.items():
            self.context.report_metrics(group, self.done, reducers.metrics(training=False))
        self.core.train.report_progress(1.0)

    @property
    def _name(self) -> str:
        return type(self.processor).__qualname__

    @property
    def _reducers_file(self) -> str:
        return f"reducers-{self.shard.rank}.pth"


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


class TorchBatchProcessor(abc.ABC):
    """Processes batches; created once per process. Load the model in `__init__`."""

    def __init__(self, context: TorchBatchProcessorContext) -> None:  # noqa: B027  (users need not call it)
        pass

    @abc.abstractmethod
    def process_batch(self, batch: Untyped, batch_idx: int) -> None:
        """Process one batch.

        Args:
            batch: as the loader returned it; `context.to_device` moves it.
            batch_idx: index of the batch in this process, from 0; a resumed job continues it.
        """

    def on_checkpoint_start(self) -> None:  # noqa: B027  (optional)
        """Store the results: a resumed job continues after the batches processed so far."""

    def on_finish(self) -> None:  # noqa: B027  (optional)
        """Finish: all batches of this process are done, and the last checkpoint is stored."""


def save(reducers: Sequence[MetricReducer], file: Path) -> None:
    """Save the state of reducers in a form that `torch.load(weights_only=True)` reads.

    Raises:
        InvalidTrialError: the state of a reducer cannot be pickled.
    """
    torch.save(
        [freeze(_state_of(reducer), f"the reducer {type(reducer).__name__}") for reducer in reducers], file
    )


def load(reducers: Sequence[MetricReducer], file: Path) -> None:
    for reducer, state in zip(reducers, thaw(torch.load(file, weights_only=True)), strict=True):
        vars(reducer).update(state)


def _state_of(reducer: MetricReducer) -> dict[str, object]:
    """Return the attributes of a reducer without its functions."""
    return {
        name: value
        for name, value in vars(reducer).items()
        if not callable(value) or isinstance(value, torch.nn.Module)
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The batches of one process."""

    records: int
    batch_size: int
    drop_last: bool
    rank: int
    size: int
    limit: int | None  # batches per process

    @property
    def rounds(self) -> int:
        """The largest number of batches of any process."""
        rounds = -(-self._batches // self.size)
        return rounds if self.limit is None else min(rounds, self.limit)

    def indices(self, begin: int) -> Iterator[list[int]]:
        """Yield the record indices of each batch, starting at batch `begin`."""
        for number in range(begin, self.rounds):
            batch = number * self.size + self.rank
            if batch < self._batches:
                first = batch * self.batch_size
                yield list(range(first, min(first + self.batch_size, self.records)))

    @property
    def _batches(self) -> int:
        whole, rest = divmod(self.records, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class _RemainingBatches(torch.utils.data.Sampler[list[int]]):
    """Batch sampler over the remaining batches of a shard."""

    def __init__(self, shard: Shard, begin: int) -> None:
        self._shard, self._begin = shard, begin

    def __iter__(self) -> Iterator[list[int]]:
        return self._shard.indices(self._begin)


def _plan_shard(
    dataset: object,
    *,
    batch_size: int | None,
    max_batches: int | None,
    options: Mapping[str, Any],
    rank: int,
    size: int,
) -> Shard:
    """Check the arguments of `torch_batch_process` and return the shard of this process.

    Raises:
        InvalidTrialError: one of them is not valid.
    """
    for name, hint in _UNSUPPORTED.items():
        if options.get(name) not in {None, False}:
            raise InvalidTrialError(f"dataloader_kwargs has the unsupported key {name}", hint=hint)
    if batch_size is not None and options.get("batch_size") is not None:
        raise InvalidTrialError(
            "the batch size is given twice: as batch_size and in dataloader_kwargs", hint="remove one of them"
        )
    chosen = batch_size if batch_size is not None else options.get("batch_size")
    return Shard(
        records=_records(dataset),
        batch_size=1 if chosen is None else _positive(chosen, "batch_size"),
        drop_last=bool(options.get("drop_last", False)),
        rank=rank,
        size=size,
        limit=None if max_batches is None else _positive(max_batches, "max_batches"),
    )


def _positive(value: object, name: str) -> int:
    """Check that a value is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidTrialError(
            f"torch_batch_process got {name}={value!r}", hint="set it to a whole number of 1 or more"
        )
    return value


def _records(dataset: object) -> int:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InvalidTrialError(
            f"torch_batch_process cannot shard a {type(dataset).__name__}",
            hint="pass a data set with __getitem__ and __len__",
        )
    return len(dataset)
