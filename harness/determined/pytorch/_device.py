"""The devices of a trial: choose them, move batches to them, train on several, seed their generators."""

from __future__ import annotations

import logging
import random
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from determined._contract.errors import InvalidTrialError
from determined._trial.state import seed_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from determined._run.processes import DistributedContext, Group

_LOG = logging.getLogger(__name__)
_NUMERIC_KINDS = "fciub"
_CPU = torch.device("cpu")
_Tensor = torch.Tensor  # a module global is looked up faster; used in every batch
State = dict[str, Any]
Untyped: TypeAlias = Any  # a batch, a metric, a sampler: any object of user code
Array: TypeAlias = Any  # torch.Tensor or numpy.ndarray; numpy need not be installed
TorchData: TypeAlias = Any  # tensors, and dicts, lists and tuples of them: for annotations of batches


def choose_device(slots: int, group: DistributedContext | None = None) -> torch.device:
    """Return the device of one process of a run with `slots` slots.

    Raises:
        InvalidTrialError: there are fewer GPUs than processes.
    """
    rank, processes = (group.local_rank, group.local_size) if group else (0, 1)
    seen = torch.cuda.device_count() if slots else 0
    if not seen:
        if slots and not rank:
            _warn_of_cpu()
        return torch.device("cpu")
    if seen < processes:
        raise InvalidTrialError(
            f"the trial has {processes} processes, but torch sees {seen} GPU{'s'[: seen > 1]}",
            hint=f"set resources.slots_per_trial to {seen}",
        )
    if slots > processes:
        _LOG.warning(
            "%d slots but %d process%s: the other GPUs are idle",
            slots,
            processes,
            "es"[: 2 * (processes > 1)],
        )
    if processes > 1:
        torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def to_device(
    data: Untyped,
    device: torch.device | str,
    warned_types: set[type] | None = None,  # noqa: ARG001  (Determined's own signature)
) -> Untyped:
    """Move tensors and numeric arrays in nested dicts, lists and tuples; other values stay as they are.

    Args:
        data: a batch.
        device: target device.
        warned_types: has no effect: each type that cannot be moved is logged once.
    """
    kind = type(data)
    if kind is torch.Tensor:
        return _moved(data, device)
    if isinstance(data, dict):
        moved = {key: to_device(value, device) for key, value in data.items()}
        return moved if kind is dict else kind(moved)  # e.g. an OrderedDict
    if isinstance(data, (list, tuple)):
        items = [to_device(item, device) for item in data]
        return kind(*items) if hasattr(data, "_fields") else kind(items)
    return _leaf(data, device)


def to_cpu(data: Untyped) -> Untyped:
    """Fast path of `to_device` for batches that are usually on the CPU already."""
    kind = type(data)
    if kind is list or kind is tuple:
        for item in data:
            if type(item) is not _Tensor or not item.is_cpu:
                return to_device(data, _CPU)
        return data
    return data if kind is _Tensor and data.is_cpu else to_device(data, _CPU)


def to_cpu_without_gpu(data: Untyped) -> Untyped:
    """Fast path of `to_cpu` without a GPU: checks only that all items are tensors."""
    kind = type(data)
    if kind is list or kind is tuple:
        for item in data:
            if type(item) is not _Tensor:
                return to_device(data, _CPU)
        return data
    return data if kind is _Tensor else to_device(data, _CPU)


def _moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    # a copy to the CPU must be complete on return: nothing synchronizes with it later
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def _leaf(data: Untyped, device: torch.device | str) -> Untyped:
    if hasattr(data, "to"):
        return data.to(device)
    if getattr(getattr(data, "dtype", None), "kind", "") in _NUMERIC_KINDS and hasattr(data, "__array__"):
        return torch.as_tensor(data).to(device)
    _warn_once(type(data).__name__)
    return data


@cache
def _warn_of_cpu() -> None:
    _LOG.warning("torch sees no GPU: training on the CPU")


@cache
def _warn_once(kind: str) -> None:
    _LOG.warning("values of type %s in a batch cannot be moved to a device and stay unchanged", kind)


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


def seed_trial(seed: int) -> None:
    """Seed all generators before a trial is created, also those of GPUs that are not initialized yet."""
    seed_all(seed)
    torch.cuda.manual_seed_all(seed)


def seed_all(seed: int) -> None:
    seed_python(seed)
    torch.default_generator.manual_seed(seed)
    if _on_gpu():
        torch.cuda.manual_seed_all(seed)


def capture() -> State:
    """Capture the states under the keys of Determined's checkpoints."""
    numpy = sys.modules.get("numpy")
    state = as_state(torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state())
    if _on_gpu():
        state["gpu_rng_state"] = torch.cuda.get_rng_state()
    return state


def as_state(torchs: torch.Tensor, pythons: object, numpys: Untyped) -> State:
    """Return the states of torch, Python and numpy (or None) as plain values."""
    state: State = {"cpu_rng_state": torchs, "random_rng_state": pythons}
    if numpys is not None:
        kind, keys, *rest = numpys
        state["np_rng_state"] = (kind, torch.as_tensor(keys.astype("int64")), *rest)
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Restore a captured state or a part of it; its tensors may be on any device."""
    if "cpu_rng_state" in state:
        torch.set_rng_state(state["cpu_rng_state"].cpu())
    if "random_rng_state" in state:
        random.setstate(tuples(state["random_rng_state"]))
    if state.get("np_rng_state") is not None:
        import numpy as np

        kind, keys, *rest = state["np_rng_state"]
        keys = torch.as_tensor(keys).cpu().numpy().astype("uint32")
        np.random.set_state((kind, keys, *rest))  # noqa: NPY002  (user code draws from this generator)
    if state.get("gpu_rng_state") is not None and _on_gpu():
        torch.cuda.set_rng_state(state["gpu_rng_state"].cpu())


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the random states after the block."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def tuples(value: Untyped) -> Untyped:
    """Convert nested lists from a checkpoint back to tuples."""
    return tuple(tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _on_gpu() -> bool:
    """Whether this process uses a GPU; the check must not initialize CUDA."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
