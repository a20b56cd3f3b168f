"""Data-parallel training with torch: the process group, and models with averaged gradients."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from determined._run.processes import Group
    from determined.pytorch._types import Untyped


class ParallelModel(DistributedDataParallel):
    """torch's DistributedDataParallel that forwards unknown attributes to the model.

    In eval mode it calls the model directly: processes may validate different numbers of batches.
    """

    def __getattr__(self, name: str) -> Untyped:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *inputs: Untyped, **keywords: Untyped) -> Untyped:
        if self.training:
            return super().forward(*inputs, **keywords)  # type: ignore[no-untyped-call]
        return self.module(*inputs, **keywords)


@contextmanager
def process_group(group: Group, device: torch.device) -> Iterator[None]:
    """Initialize torch's process group (NCCL or gloo) for the block, unless user code did so."""
    if group.size == 1 or distributed.is_initialized():
        yield
        return
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    distributed.init_process_group(backend, device_id=bound)
    yield
    distributed.destroy_process_group()  # not after a failure: it would wait for processes that have ended


def parallel(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Wrap a model in ParallelModel, unless it has no trainable weights."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    on_gpu = device.type == "cuda"
    made = ParallelModel(model, device_ids=[device] if on_gpu else None)
    if not on_gpu:
        # Otherwise the first backward pass rebuilds the buckets, and with three or more processes the last
        # bits of sums depend on them: a resumed run would differ from an uninterrupted one.
        made.reducer._push_all_rebuilt_params()  # noqa: SLF001  (torch itself calls it in join())
        made.reducer._rebuild_buckets()  # noqa: SLF001
    return made


def inner(model: torch.nn.Module) -> torch.nn.Module:
    """Return the user's model without its wrappers."""
    model = model.module if isinstance(model, ParallelModel) else model
    compiled = getattr(model, "_orig_mod", None)  # set by torch.compile
    return compiled if isinstance(compiled, torch.nn.Module) else model


def averaging(models: Iterable[torch.nn.Module], *, on: bool) -> None:
    """Turn gradient averaging over processes on or off for the next forward and backward pass."""
    for model in models:
        if isinstance(model, ParallelModel):
            model.require_backward_grad_sync = on


def same_buffers(models: Iterable[torch.nn.Module]) -> None:
    """Broadcast rank 0's buffers, e.g. running statistics, for validation and checkpoints."""
    for model in models:
        if isinstance(model, ParallelModel):
            for buffer in model.module.buffers():
                distributed.broadcast(buffer, 0)
