"""Validation of a trial, per batch or on the whole data set."""

from __future__ import annotations

import inspect
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import InvalidTrialError
from determined._run.metric_values import LeftOut
from determined._run.outcome import defined_at
from determined.pytorch import _across
from determined.pytorch._data import length_of
from determined.pytorch._distributed import same_buffers
from determined.pytorch._metrics import Window, as_metrics, reduce_validation, rows
from determined.pytorch._reducers import reducers_of
from determined.pytorch._trial import PyTorchTrial, overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext

_LOG = logging.getLogger(__name__)
_WARN_RATIO = 10  # validated batches per trained batch
_MIN_TRAINED = 100  # batches


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
        return _across.validation(own, window.count, reducers, self._group)


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
