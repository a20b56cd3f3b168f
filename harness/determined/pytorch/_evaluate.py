"""Validation of a trial, per batch or on the whole data set, and one batch of it before training.

The batch before training has no side effects: random states, model, trial and reducers are restored, so
that errors show at once and no number changes.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.data import DataLoader, IterableDataset

from determined._contract.errors import InvalidTrialError
from determined._run.metric_values import LeftOut
from determined._run.outcome import defined_at
from determined._trial.snapshot import CannotRestoreError, NumpyHandler, Snapshot
from determined._trial.validation import log_skipped, preflight_errors, silence
from determined.pytorch import _device, _metrics
from determined.pytorch._callbacks import Hooks
from determined.pytorch._data import length_of
from determined.pytorch._device import same_buffers
from determined.pytorch._metrics import Window, as_metrics, reduce_validation, reducers_of, rows
from determined.pytorch._trial import PyTorchTrial, overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from determined._contract.run_info import RunInfo
    from determined._run.lockstep import Lockstep
    from determined._trial.loop import Metrics
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._device import Untyped
    from determined.pytorch._loaders import Loaders

_LOG = logging.getLogger(__name__)
_WARN_RATIO = 10  # validated batches per trained batch
_MIN_TRAINED = 100  # batches
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PREPARING = ("on_validation_start", "on_validation_step_start", "on_validation_epoch_start")


class Evaluation:
    """Validates a trial.

    Args:
        trial: whose methods are called.
        context: of the trial.
        hooks: its callbacks.
        loader: the validation data.
        limit: batches to read; None reads all.
        searcher_metric: its name.
        tick: called after each batch.
    """

    def __init__(
        self,
        trial: PyTorchTrial,
        context: PyTorchTrialContext,
        hooks: Hooks,
        loader: Iterable[Any],
        limit: int | None = None,
        *,
        searcher_metric: str = "",
        tick: Callable[[], object] | None = None,
    ) -> None:
        self._trial, self._context, self._hooks = trial, context, hooks
        self._loader, self._limit, self._tick = loader, limit, tick
        self._searcher_metric = searcher_metric
        self._trained = 0  # batches, at the last validation
        self._whole = overrides(type(trial), "evaluate_full_dataset")
        self._group = context.distributed.group
        self.names: tuple[str, ...] = ()  # of the metrics from evaluate_batch, with or without a value
        self._left_out = LeftOut("evaluate_full_dataset" if self._whole else "evaluate_batch")

    @property
    def by_batch(self) -> bool:
        return not self._whole

    def run(self) -> dict[str, object]:
        """Validate in eval mode without gradients, then set train mode again."""
        self._context.reducers.reset(training=False)
        for model in self._context.models:
            model.eval()
        if self._group.size > 1:
            same_buffers(self._context.models)
        self._hooks.call("on_validation_step_start")
        self._hooks.call("on_validation_start")
        with torch.no_grad():
            metrics = self._full_dataset() if self._whole else self._batches()
        metrics = {**metrics, **self._context.reducers.metrics(training=False)}
        self._check_searcher_metric(metrics)
        self._hooks.call("on_validation_step_end", metrics)
        self._hooks.call("on_validation_end", metrics)
        for model in self._context.models:
            model.train()
        return metrics

    def _warn_after(self) -> int:
        """Return after how many batches to warn about data of unknown length; -1 if it is known."""
        at = self._context.clock.batch_idx
        trained = 0 if at is None else at + 1
        since, self._trained = trained - self._trained, trained
        return _WARN_RATIO * max(since, _MIN_TRAINED) if length_of(self._loader) is None else -1

    def _warn_of_length(self, batches: int) -> None:
        _LOG.warning(
            "this validation has read %d batches so far, at least %d times the training since the last one, "
            "and its data has no known length; let the loader of build_validation_data_loader (%s) end after "
            "one pass",
            batches,
            _WARN_RATIO,
            defined_at(self._trial.build_validation_data_loader),
        )

    def _full_dataset(self) -> dict[str, object]:
        """Validate the whole data set on rank 0; the others wait."""
        metrics: dict[str, object] = {}
        if self._group.rank == 0:
            evaluate = self._trial.evaluate_full_dataset
            outcome = evaluate(self._loader)  # type: ignore[arg-type]
            found = as_metrics(outcome, "evaluate_full_dataset", defined_at(evaluate))
            there = {name: value for name, value in found.items() if value is not None}
            metrics = self._left_out.written(there)
        return self._group.broadcast(metrics)

    def _check_searcher_metric(self, metrics: dict[str, object]) -> None:
        """Check that the searcher metric could be reported."""
        name = self._searcher_metric
        reason = self._left_out.reasons.get(name) or self._context.reducers.left_out.reasons.get(name)
        if reason and name not in metrics:
            method = self._trial.evaluate_full_dataset if self._whole else self._trial.evaluate_batch
            raise InvalidTrialError(
                f"{defined_at(method)}: the searcher metric {name} cannot be reported: {reason}",
                hint=f"return {name} as one number, or set searcher.metric to another metric",
            )

    def _batches(self) -> dict[str, object]:
        watched = bool(self._hooks.of("on_validation_epoch_end"))
        read_numbers = self._context.device.type == "cpu" and not watched
        place = defined_at(self._trial.evaluate_batch)
        window = Window("evaluate_batch", read_numbers=read_numbers, place=place)
        evaluate = _evaluate_batch(self._trial)
        self._hooks.call("on_validation_epoch_start")
        warn_at = self._warn_after()
        for number, batch in enumerate(islice(self._loader, self._limit)):
            if number == warn_at:
                self._warn_of_length(number)
            placed = self._context.to_device(batch) if self._context.experimental.auto_to_device else batch
            window.add(evaluate(placed, number))
            if self._tick:
                self._tick()
        if watched:
            self._hooks.call("on_validation_epoch_end", rows(window.columns, window.count))
        self.names = tuple(window.columns)
        declared = self._trial.evaluation_reducer()
        reducers = (
            reducers_of(declared, list(window.columns)) if window.count or self._group.size == 1 else {}
        )
        own = reduce_validation(window.columns, window.kinds, reducers, self._left_out)
        return _metrics.reduce_over_processes(own, window.count, reducers, self._group)


def _evaluate_batch(trial: PyTorchTrial) -> Callable[[Any, int], object]:
    """Return `evaluate_batch` with a `batch_idx` argument; before Determined 0.14.5 it had none."""
    method: Callable[..., object] = trial.evaluate_batch
    parameters = inspect.signature(method).parameters
    if "batch_idx" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return lambda batch, number: method(batch, batch_idx=number)
    positional = [p for p in parameters.values() if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        return method
    return lambda batch, _: method(batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a built trial."""

    trial: PyTorchTrial
    trial_class: type  # as the user wrote it
    context: PyTorchTrialContext
    hooks: Hooks
    loaders: Loaders
    info: RunInfo
    data_seed: int
    is_trainer: bool = False
    validation_limit: int | None = None  # batches
    lockstep: Lockstep | None = None  # with other processes


def preflight(parts: Parts, searcher_metric: str) -> Metrics | None:
    """Validate one batch without callbacks, then restore all state; None if that is not possible.

    A metric without a value for this batch is None.
    """
    group = parts.context.distributed.group
    with _device.preserved(), silence():
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
            _device.preserved(),
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
