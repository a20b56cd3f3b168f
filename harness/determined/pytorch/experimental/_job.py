"""`torch_batch_process`: process every batch of a data set once, resumable, with all processes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.data

from determined._contract.checkpoints import read_metadata
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._run.script import RunHandle, RunOptions, script_run
from determined.core._context import opened
from determined.pytorch._device import choose_device
from determined.pytorch._distributed import process_group
from determined.pytorch.experimental import _seen
from determined.pytorch.experimental._context import TorchBatchProcessorContext
from determined.pytorch.experimental._processor import TorchBatchProcessor
from determined.pytorch.experimental._share import RemainingBatches, Shard, plan_shard, positive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._run.processes import DistributedContext
    from determined.core import Context

_LOG = logging.getLogger(__name__)
_OUTPUT = "batch-output"  # below the checkpoints, which outlive the container


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
        shard = plan_shard(
            dataset,
            batch_size=batch_size,
            max_batches=1 if handle.info.test_mode else max_batches,
            options=options,
            rank=handle.distributed.rank,
            size=handle.distributed.size,
        )
        interval = positive(checkpoint_interval, "checkpoint_interval")
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
        sampler = RemainingBatches(self.shard, self.done)
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
                _seen.save(self.context.states, path / self._reducers_file)
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
            _seen.load(self.context.states, found[0] / self._reducers_file)
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
