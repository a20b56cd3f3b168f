"""Several processes for one trial, by torch: the process group, and models whose gradients they average."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from determined._group import Group
    from determined.pytorch._types import Untyped


class ParallelModel(DistributedDataParallel):
    """torch's DistributedDataParallel that lets through to the model what it does not know itself.

    In eval mode it is the model itself: processes may validate different numbers of batches.
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
    """Have torch's own process group in the block, by NCCL or gloo, unless user code has made one."""
    if group.size == 1 or distributed.is_initialized():
        yield
        return
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    distributed.init_process_group(backend, device_id=bound)
    yield
    distributed.destroy_process_group()  # not after a failure: others are gone, and it would wait for them


def parallel(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model as one of several equal ones. Without weights to train there is nothing to average."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    on_gpu = device.type == "cuda"
    made = ParallelModel(model, device_ids=[device] if on_gpu else None)
    if not on_gpu:
        # Else the first backward pass re-arranges what is summed together, and with three processes or more
        # the last bits of sums depend on it: a resumed run would differ from one that was not interrupted.
        made.reducer._push_all_rebuilt_params()  # noqa: SLF001  (torch calls it so itself, in join())
        made.reducer._rebuild_buckets()  # noqa: SLF001
    return made


def inner(model: torch.nn.Module) -> torch.nn.Module:
    """The user's model, without what was put around it."""
    model = model.module if isinstance(model, ParallelModel) else model
    compiled = getattr(model, "_orig_mod", None)  # what torch.compile returns holds it so
    return compiled if isinstance(compiled, torch.nn.Module) else model


def averaging(models: Iterable[torch.nn.Module], *, on: bool) -> None:
    """Whether the next forward and backward pass averages gradients over the processes."""
    for model in models:
        if isinstance(model, ParallelModel):
            model.require_backward_grad_sync = on


def same_buffers(models: Iterable[torch.nn.Module]) -> None:
    """Give all processes rank 0's running statistics, with which the model is validated and saved."""
    for model in models:
        if isinstance(model, ParallelModel):
            for buffer in model.module.buffers():
                distributed.broadcast(buffer, 0)
