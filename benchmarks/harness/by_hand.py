"""The hand-written loop that everything here is measured against, and what it trains on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS, BATCH = 12_800, 32
now = time.process_time


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(RECORDS, 16, generator=generator)
    return TensorDataset(x, x[:, :1])


def tiny_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))


class Ready(list[tuple[torch.Tensor, ...]]):
    """Batches made beforehand: loading costs both sides nothing."""


def pictures() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(RECORDS // 10, 3, 32, 32, generator=generator)
    return TensorDataset(x, x[:, 0, 0, :1])


def small_cnn() -> nn.Module:
    first = (nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32, 1))


def ready(source: TensorDataset | None = None) -> Ready:
    return Ready(tuple(batch) for batch in TorchDataLoader(source or data(), batch_size=BATCH))


def by_hand(
    batches: Ready,
    steps: int,
    report: int,
    build: Callable[[], nn.Module] = tiny_mlp,
    zero: Callable[[torch.optim.Optimizer], None] = torch.optim.Optimizer.zero_grad,
) -> Iterator[float]:
    """Seconds of each block of `steps` steps; `zero` is how gradients are reset."""
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    while True:
        total, source = torch.zeros(()), iter(batches)
        start = now()
        for step in range(steps):
            try:
                x, y = next(source)
            except StopIteration:
                source = iter(batches)
                x, y = next(source)
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            zero(optimizer)
            total += loss.detach()
            if (step + 1) % report == 0:
                (total / report).item()
                total.zero_()
        yield now() - start
