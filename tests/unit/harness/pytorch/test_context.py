from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined.pytorch import LRScheduler, PyTorchTrialContext
from determined.pytorch._context import Aggregation, Pace, Setting
from tests.unit.harness.pytorch.driving import Folder, TinyTrial


def context(**aggregation: Any) -> PyTorchTrialContext:
    return PyTorchTrialContext(
        Setting(device=torch.device("cpu"), hparams={}, aggregation=Aggregation(**aggregation))
    )


class One:
    """One weight that begins at 0; its gradient is whatever the loss is multiplied with."""

    def __init__(self, ctx: PyTorchTrialContext, **wrapping: Any) -> None:
        self.context = ctx
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        self.model = ctx.wrap_model(model)
        self.optimizer = ctx.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=1.0), **wrapping)

    def batch(self, index: int, gradient: float, **stepping: Any) -> float:
        self.context.clock.batch_idx = index
        self.context.backward(self.model(torch.tensor([[gradient]])).sum())
        self.context.step_optimizer(self.optimizer, **stepping)
        return round(self.model.weight.item(), 6)


def test_every_batch_is_a_step_by_default() -> None:
    one = One(context())
    assert [one.batch(index, 2.0) for index in range(3)] == [-2.0, -4.0, -6.0]


def test_aggregated_gradients_are_averaged() -> None:
    one = One(context(frequency=2))
    assert [one.batch(0, 2.0), one.batch(1, 4.0), one.batch(2, 1.0), one.batch(3, 1.0)] == [
        0.0,
        -3.0,
        -3.0,
        -4.0,
    ]


def test_aggregated_gradients_are_summed_where_the_config_or_the_optimizer_says_so() -> None:
    for one in (
        One(context(frequency=2, average=False)),
        One(context(frequency=2), average_aggregated_gradients=False),
    ):
        assert [one.batch(0, 2.0), one.batch(1, 4.0)] == [0.0, -6.0]


def test_clipping_sees_the_averaged_gradients_before_the_step() -> None:
    one, seen = One(context(frequency=2)), []

    def clip(parameters: Any) -> None:
        (weight,) = parameters
        seen.append(weight.grad.item())
        weight.grad.clamp_(max=0.5)

    assert [one.batch(0, 2.0, clip_grads=clip), one.batch(1, 4.0, clip_grads=clip)] == [0.0, -0.5]
    assert seen == [3.0]


def test_gradients_are_kept_where_the_trial_zeroes_them_itself() -> None:
    one = One(context())
    one.batch(0, 2.0, auto_zero_grads=False)
    assert one.model.weight.grad.item() == 2.0
    with pytest.raises(
        InvalidTrialError, match=r"auto_zero_grads=False, but optimizations.aggregation_frequency is 2"
    ):
        One(context(frequency=2)).batch(0, 1.0, auto_zero_grads=False)


@pytest.mark.parametrize("clip_grads", [None, list], ids=["plain", "clipped"])
def test_after_a_step_gradients_are_gone_as_after_zero_grad(clip_grads: Any) -> None:
    one = One(context())
    later = nn.Parameter(torch.zeros(1))
    later.grad = torch.ones(1)
    one.optimizer.add_param_group({"params": [later]})
    one.batch(0, 2.0, clip_grads=clip_grads)
    assert [one.model.weight.grad, later.grad, later.item()] == [None, None, -1.0]


@pytest.mark.parametrize("clip_grads", [None, list], ids=["plain", "clipped"])
def test_an_optimizer_zeroes_its_own_way(clip_grads: Any) -> None:
    class Zeroing(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = False) -> None:
            super().zero_grad(set_to_none)

    one = One(context())
    one.optimizer = one.context.wrap_optimizer(Zeroing(one.model.parameters(), lr=1.0))
    one.batch(0, 2.0, clip_grads=clip_grads)
    assert one.model.weight.grad.item() == 0.0

    patched, calls = One(context()), []
    patched.optimizer.zero_grad = lambda: calls.append("zero_grad")
    patched.batch(0, 2.0, clip_grads=clip_grads)
    assert (calls, patched.model.weight.grad.item()) == (["zero_grad"], 2.0)


def test_backward_passes_on_what_torch_takes() -> None:
    one = One(context())
    output = one.model(torch.tensor([[3.0]]))
    one.context.backward(output, gradient=torch.tensor([[2.0]]), retain_graph=True)
    assert one.model.weight.grad.item() == 6.0


def test_an_optimizer_that_was_not_wrapped_is_refused() -> None:
    one = One(context())
    one.optimizer = torch.optim.SGD(one.model.parameters(), lr=1.0)
    with pytest.raises(InvalidTrialError, match="step_optimizer got an optimizer that was not wrapped"):
        one.batch(0, 1.0)


def test_automatic_mixed_precision_computes_in_half_and_gives_back_float32() -> None:
    ctx = context()
    ctx.experimental.use_amp()
    seen: list[torch.dtype] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            out = self.inner(x)
            seen.append(out.dtype)
            return {"out": out, "parts": [out]}

    output = ctx.wrap_model(Spy())(torch.ones(1, 1))
    assert seen == [torch.bfloat16]
    assert (output["out"].dtype, output["parts"][0].dtype) == (torch.float32, torch.float32)


def test_a_scaler_of_the_trial_steps_the_optimizer() -> None:
    ctx = context()
    scaler = ctx.wrap_scaler(torch.amp.GradScaler("cpu", init_scale=4.0))
    one = One(ctx)
    ctx.clock.batch_idx = 0
    ctx.backward(scaler.scale(one.model(torch.tensor([[2.0]])).sum()))
    ctx.step_optimizer(one.optimizer, scaler=scaler)
    scaler.update()
    assert one.model.weight.item() == -2.0


def test_what_comes_too_late_or_twice_is_refused() -> None:
    one = One(context())
    with pytest.raises(InvalidTrialError, match="use_amp was called after wrap_model"):
        one.context.experimental.use_amp()
    with pytest.raises(InvalidTrialError, match="wrap_scaler was called after wrap_model"):
        one.context.wrap_scaler(torch.amp.GradScaler("cpu"))
    with pytest.raises(InvalidTrialError, match="apex is not supported"):
        one.context.configure_apex_amp([], [], opt_level="O2")
    with pytest.raises(InvalidTrialError, match="backward_passes_per_step=0"):
        one.context.wrap_optimizer(one.optimizer, backward_passes_per_step=0)
    with pytest.raises(InvalidTrialError, match="wrap_model got a int"):
        one.context.wrap_model(3)  # type: ignore[type-var]


Mode = LRScheduler.StepMode


def steps(mode: Mode, *, frequency: int = 1, aggregation: int = 1, batches: int = 12) -> list[int]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = LRScheduler(torch.optim.lr_scheduler.ConstantLR(optimizer), mode, frequency)
    pace = Pace(epoch_length=5, aggregation_frequency=aggregation)
    return [pace.steps(scheduler, batch) for batch in range(batches)]


@pytest.mark.parametrize(
    ("mode", "frequency", "aggregation", "expected"),
    [
        (Mode.STEP_EVERY_BATCH, 1, 1, [1] * 12),
        (Mode.STEP_EVERY_BATCH, 3, 1, [0, 0, 1] * 4),
        (Mode.STEP_EVERY_BATCH, 1, 4, [0, 0, 0, 4] * 3),
        (Mode.STEP_EVERY_BATCH, 3, 4, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]),
        (Mode.STEP_EVERY_EPOCH, 1, 1, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
        (Mode.STEP_EVERY_EPOCH, 2, 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
        (Mode.STEP_EVERY_EPOCH, 1, 4, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
        (Mode.STEP_EVERY_EPOCH, 1, 6, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]),
        (Mode.STEP_EVERY_OPTIMIZER_STEP, 1, 4, [0, 0, 0, 1] * 3),
        (Mode.STEP_EVERY_OPTIMIZER_STEP, 2, 3, [0, 0, 0, 0, 0, 1] * 2),
        (Mode.MANUAL_STEP, 1, 1, [0] * 12),
    ],
)
def test_when_a_scheduler_steps(mode: Mode, frequency: int, aggregation: int, expected: list[int]) -> None:
    assert steps(mode, frequency=frequency, aggregation=aggregation) == expected


def test_without_a_length_there_is_no_epoch_to_step_for() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = LRScheduler(torch.optim.lr_scheduler.ConstantLR(optimizer), Mode.STEP_EVERY_EPOCH)
    assert Pace(None).steps(scheduler, 4) == 0


def test_the_harness_steps_what_was_wrapped_and_gives_it_back_as_it_was(folder: Folder) -> None:
    rates: list[float] = []

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=1, gamma=0.1)
            assert context.wrap_lr_scheduler(scheduler, Mode.STEP_EVERY_BATCH, frequency=2) is scheduler

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            rates.append(round(self.optimizer.param_groups[0]["lr"], 6))
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder.drive(Trial, max_length=Length("batches", 5))
    assert rates == [0.01, 0.01, 0.001, 0.001, 0.0001]


def test_what_cannot_be_stepped_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InvalidTrialError, match="ReduceLROnPlateau steps on a metric"):
        LRScheduler(plateau, Mode.STEP_EVERY_EPOCH)
    assert LRScheduler(plateau, Mode.MANUAL_STEP).scheduler is plateau
    with pytest.raises(InvalidTrialError, match="frequency of a learning-rate scheduler is 0"):
        LRScheduler(plateau, Mode.MANUAL_STEP, 0)
    with pytest.raises(InvalidTrialError, match="step_mode of a learning-rate scheduler is 'epoch'"):
        LRScheduler(plateau, "epoch")  # type: ignore[arg-type]


def test_a_scheduler_of_an_optimizer_that_was_not_wrapped_is_refused(folder: Folder) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            other = torch.optim.SGD(self.model.parameters(), lr=1.0)
            context.wrap_lr_scheduler(torch.optim.lr_scheduler.StepLR(other, 1), Mode.STEP_EVERY_EPOCH)

    with pytest.raises(InvalidTrialError, match="an optimizer that was not wrapped"):
        folder.drive(Trial)
