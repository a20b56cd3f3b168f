"""Choose the device of a trial, and move batches to it."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import torch

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from determined._run.processes import DistributedContext
    from determined.pytorch._types import Untyped

_LOG = logging.getLogger(__name__)
_NUMERIC_KINDS = "fciub"
_CPU = torch.device("cpu")
_Tensor = torch.Tensor  # a module global is looked up faster; used in every batch


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
