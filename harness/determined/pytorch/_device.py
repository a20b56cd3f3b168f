"""Which device a trial trains on, and how batches get there."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import torch

from determined._errors import InvalidTrialError

if TYPE_CHECKING:
    from determined._distributed import DistributedContext
    from determined.pytorch._types import Untyped

_LOG = logging.getLogger(__name__)
_NUMERIC_KINDS = "fciub"
_CPU = torch.device("cpu")
_Tensor = torch.Tensor  # found faster, in every batch


def choose_device(slots: int, group: DistributedContext | None = None) -> torch.device:
    """The device of one process of a run with `slots` slots.

    Raises:
        InvalidTrialError: there are GPUs, but fewer than processes.
    """
    rank, processes = (group.local_rank, group.local_size) if group else (0, 1)
    seen = torch.cuda.device_count() if slots else 0
    if not seen:
        if slots and not rank:
            _warn_of_cpu()
        return torch.device("cpu")
    if seen < processes:
        raise InvalidTrialError(
            f"the trial has {processes} processes, and torch sees {seen} GPU{'s'[: seen > 1]}",
            hint=f"set resources.slots_per_trial to {seen}",
        )
    if slots > processes:
        _LOG.warning(
            "%d slots and %d process%s: the other GPUs are idle",
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
    """Move tensors and numeric arrays, anywhere in dicts, lists and tuples; leave what cannot be moved.

    Args:
        data: a batch.
        device: where to.
        warned_types: accepted for compatibility: of each type it is said once that it is left.
    """
    kind = type(data)
    if kind is torch.Tensor:
        return _moved(data, device)
    if isinstance(data, dict):
        moved = {key: to_device(value, device) for key, value in data.items()}
        return moved if kind is dict else kind(moved)  # an OrderedDict and the like
    if isinstance(data, (list, tuple)):
        items = [to_device(item, device) for item in data]
        return kind(*items) if hasattr(data, "_fields") else kind(items)
    return _leaf(data, device)


def to_cpu(data: Untyped) -> Untyped:
    """`to_device` for the CPU, where batches are already: looks, and seldom copies."""
    kind = type(data)
    if kind is list or kind is tuple:
        for item in data:
            if type(item) is not _Tensor or not item.is_cpu:
                return to_device(data, _CPU)
        return data
    return data if kind is _Tensor and data.is_cpu else to_device(data, _CPU)


def at_home(data: Untyped) -> Untyped:
    """`to_cpu` where torch knows no other device: it is enough to see that all are tensors."""
    kind = type(data)
    if kind is list or kind is tuple:
        for item in data:
            if type(item) is not _Tensor:
                return to_device(data, _CPU)
        return data
    return data if kind is _Tensor else to_device(data, _CPU)


def _moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    # towards the CPU nothing waits for the copy, so there it must be complete
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
    _LOG.warning(
        "values of type %s in a batch cannot be moved to a device and are passed on as they are", kind
    )
