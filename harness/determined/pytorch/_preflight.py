"""Preflight validation: one batch before training, without side effects, so that errors show at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.data import DataLoader, IterableDataset

from determined._contract.errors import InvalidTrialError
from determined._trial.snapshot import CannotRestoreError, NumpyHandler, Snapshot
from determined._trial.validation import log_skipped, preflight_errors, silence
from determined.pytorch import _rng
from determined.pytorch._callbacks import Hooks
from determined.pytorch._evaluate import Evaluation

if TYPE_CHECKING:
    from determined._trial.loop import Metrics
    from determined.pytorch._parts import Parts
    from determined.pytorch._types import Untyped

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PREPARING = ("on_validation_start", "on_validation_step_start", "on_validation_epoch_start")


def preflight(parts: Parts, searcher_metric: str) -> Metrics | None:
    """Validate one batch without callbacks, then restore all state; None if that is not possible.

    A metric without a value for this batch is None.
    """
    group = parts.context.distributed.group
    with _rng.preserved(), silence():
        found = _prepared(parts, searcher_metric)
    reasons = group.allgather(found if isinstance(found, str) else "")
    if any(reasons) or isinstance(found, str):
        log_skipped(next(filter(None, reasons)))
        return None
    snapshot, evaluation = found
    clock = parts.context.clock
    batch, clock.batch_idx = clock.batch_idx, clock.batch_idx or 0  # evaluation may read it
    reasons_left_out = parts.context.reducers.left_out.reasons
    earlier = dict(reasons_left_out)  # logs are silenced here, so training must be able to warn later
    metrics: Metrics | None = None
    try:
        with (
            preflight_errors((parts.trial,), Path(parts.info.context_dir).resolve()),
            _rng.preserved(),
            silence(),
        ):
            metrics = evaluation.run()
    finally:
        clock.batch_idx = batch
        reasons_left_out.clear()
        reasons_left_out.update(earlier)
        snapshot.restore()
    if metrics is None:
        return None
    unnamed = any(one.name is None for one in parts.context.reducers.of(training=False))
    return {**({searcher_metric: None} if unnamed else {}), **dict.fromkeys(evaluation.names), **metrics}


def _prepared(parts: Parts, searcher_metric: str) -> str | tuple[Snapshot, Evaluation]:
    """Take the snapshot and build the evaluation, or return why that is not possible."""
    context, hooks = parts.context, parts.hooks
    preparing = next(filter(hooks.of, _PREPARING), None)
    if preparing:
        return f"a callback prepares validation in {preparing}"
    roots = [parts.trial, context, *hooks.callbacks.values(), parts.loaders.validation]
    try:
        keeper = _Keeper()
        snapshot = Snapshot(roots, Path(parts.info.context_dir).resolve(), keeper)
        loader = _first_batch(parts.loaders.validation)
    except CannotRestoreError as error:
        return str(error)
    return snapshot, Evaluation(parts.trial, context, Hooks({}), loader, searcher_metric=searcher_metric)


def _first_batch(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader with the same options but one batch and at most one worker."""
    if isinstance(loader.dataset, IterableDataset):
        raise CannotRestoreError("the validation data set is a stream, which can be read only once")
    options: dict[str, Any] = {
        "num_workers": min(1, loader.num_workers),
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": loader.generator,
    }
    if loader.batch_sampler is None:
        options |= {"batch_size": None, "sampler": list(_one(loader.sampler))}
    else:
        options["batch_sampler"] = list(_one(loader.batch_sampler))
    return DataLoader(loader.dataset, **options)


def _one(sampler: Untyped) -> list[Any]:
    for each in sampler:
        return [each]
    return []


class _Keeper(NumpyHandler):
    """Keeps tensors, arrays and generators: small ones by a copy; of others a change is noticed."""

    def __call__(self, value: Untyped, snapshot: Snapshot) -> bool:
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            raise CannotRestoreError("the model has lazy layers, which the first batch creates")
        if type(value) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer}:
            self._tensor(value, snapshot)
        elif isinstance(value, torch.Generator):
            state = value.get_state()
            snapshot.on_restore(lambda: value.set_state(state))
        else:
            skipped = isinstance(value, (torch.Tensor, torch.device, torch.dtype, torch.Size))
            return skipped or self.numpy(value, snapshot)
        return True

    def _tensor(self, tensor: torch.Tensor, snapshot: Snapshot) -> None:
        if tensor.is_leaf:
            grad, requires_grad = tensor.grad, tensor.requires_grad
            snapshot.on_restore(lambda: _put_leaf(tensor, grad, requires_grad=requires_grad))
            snapshot.visit(grad)
        if tensor.layout is not torch.strided or tensor.device.type == "meta":
            return
        held = tensor.detach()
        kept = held.clone() if self.fits(held.nbytes) else _checksum(held)
        snapshot.on_restore(lambda: _put(tensor, held, kept))
        snapshot.visit(vars(tensor))


def _put_leaf(tensor: torch.Tensor, grad: torch.Tensor | None, *, requires_grad: bool) -> None:
    tensor.grad = grad
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _put(tensor: torch.Tensor, held: torch.Tensor, kept: torch.Tensor | int) -> None:
    """Restore a tensor.

    Args:
        tensor: its storage may have been replaced.
        held: its original storage.
        kept: a copy of that, or its checksum.
    """
    if tensor.data_ptr() != held.data_ptr():
        tensor.data = held
    if isinstance(kept, int):
        if _checksum(held) != kept:
            raise InvalidTrialError(
                f"validation changed a tensor of {held.nbytes >> 20} MiB, too large to be restored",
                hint="set `preflight_validation: false` to skip it",
            )
    elif _checksum(held) != _checksum(kept) or not torch.equal(_bits(held), _bits(kept)):
        with torch.no_grad():
            held.copy_(kept)


def _checksum(tensor: torch.Tensor) -> int:
    """Return a checksum of a tensor, computed on its device."""
    return int(_bits(tensor).sum(dtype=torch.int64))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """View a tensor as integers, so that NaN equals NaN."""
    if tensor.dtype is torch.bool or not tensor.numel():
        return tensor.view(torch.uint8) if tensor.numel() else torch.zeros(1)
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.contiguous().view(_WHOLE[real.element_size()])
