"""Gradients from the loss to the optimizer step: scaling, aggregation, averaging, clipping."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.amp.grad_scaler import GradScaler

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from determined._trial.schedule import Clock
    from determined.pytorch._types import Untyped

ClipGrads = Callable[[Iterator[torch.nn.Parameter]], object]
_ZERO_GRAD = torch.optim.Optimizer.zero_grad


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Gradient aggregation: one optimizer step per `frequency` batches."""

    frequency: int = 1
    average: bool = True


class Gradients:
    """The optimizers of one trial and their steps."""

    def __init__(self, aggregation: Aggregation, clock: Clock, device: torch.device) -> None:
        self.aggregation = aggregation
        self.scaler: GradScaler | None = None
        self.automatic = False  # the harness scales and unscales, not the trial
        self._frequency = aggregation.frequency
        self._clock = clock
        self._device = device
        self._average: dict[int, bool] = {}  # by the optimizer's id
        self._update_due = False
        self.plain: set[torch.optim.Optimizer] = (
            set()
        )  # they step after each batch, without scaling or aggregation

    def add(self, optimizer: torch.optim.Optimizer, *, average: bool | None) -> None:
        self._average[id(optimizer)] = self.aggregation.average if average is None else average
        if self._frequency == 1 and not self.automatic:
            self.plain.add(optimizer)

    def use_amp(self) -> None:
        self.scaler = GradScaler(self._device.type, enabled=self._device.type == "cuda")
        self.automatic = True
        self.plain.clear()

    def autocast(self, model: torch.nn.Module) -> None:
        """Run the model in half precision where that is safe; outputs are float32."""
        forward = model.forward

        @functools.wraps(forward)
        def mixed(*args: Untyped, **keywords: Untyped) -> Untyped:
            with torch.autocast(self._device.type):
                return _widened(forward(*args, **keywords))

        model.forward = mixed

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return self.scaler.scale(loss) if self.scaler is not None else loss

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        clip_grads: ClipGrads | None,
        auto_zero_grads: bool,  # noqa: FBT001  (forwarded as it came)
        scaler: GradScaler | None,
    ) -> None:
        if id(optimizer) not in self._average:
            raise InvalidTrialError(
                "step_optimizer got an optimizer that was not wrapped",
                hint="wrap it in __init__: self.optimizer = context.wrap_optimizer(optimizer)",
            )
        if self._frequency > 1 and not self._aggregated(optimizer, auto_zero_grads=auto_zero_grads):
            return
        own = self.scaler if self.automatic else None
        if clip_grads is not None:
            if own is not None:
                own.unscale_(optimizer)
            clip_grads(parameters(optimizer))
        if scaler is not None or own is not None:
            (scaler or own).step(optimizer)  # type: ignore[union-attr]
            self._update_due = scaler is None
        else:
            optimizer.step()
        if auto_zero_grads:
            drop_gradients(optimizer)

    def end_batch(self) -> None:
        """Update the loss scale after the batch's steps."""
        if self._update_due and self.scaler is not None:
            self.scaler.update()
            self._update_due = False

    def _aggregated(self, optimizer: torch.optim.Optimizer, *, auto_zero_grads: bool) -> bool:
        if not auto_zero_grads:
            raise InvalidTrialError(
                "step_optimizer got auto_zero_grads=False, but optimizations.aggregation_frequency is "
                f"{self._frequency}",
                hint="remove auto_zero_grads, or set aggregation_frequency to 1",
            )
        if (self._clock.batch + 1) % self._frequency:
            return False
        if self._average[id(optimizer)]:
            for parameter in parameters(optimizer):
                if parameter.grad is not None:
                    parameter.grad.div_(self._frequency)
        return True


def parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Do what `optimizer.zero_grad()` does, without its profiler entry; an overridden one is called.

    For a small model the profiler entry costs several times the rest, even without a profiler. See
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
    """
    if getattr(optimizer.zero_grad, "__func__", None) is not _ZERO_GRAD:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def gradients_of(models: Iterable[torch.nn.Module]) -> list[dict[str, torch.Tensor]]:
    """Return the aggregated gradients by parameter; empty dicts after an optimizer step."""
    return [{name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in models]


def restore_gradients(
    models: Iterable[torch.nn.Module], gradients: Iterable[dict[str, torch.Tensor]]
) -> None:
    for model, of_model in zip(models, gradients, strict=False):
        known = dict(model.named_parameters())
        for name, gradient in of_model.items():
            known[name].grad = gradient.to(known[name].device)


def _widened(value: Untyped) -> Untyped:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in {torch.float16, torch.bfloat16} else value
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in {list, tuple}:
        return type(value)(_widened(item) for item in value)
    return value
