"""Checks of what the harness costs on a device: throughput, memory, the hold of a checkpoint."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from setting import Folder, Place, cnn, expect, feed_forward, folder
from torch import nn

from determined.pytorch import DataLoader, PyTorchTrial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined.pytorch._device import Untyped

Figures = dict[str, object]
Batch = tuple[torch.Tensor, torch.Tensor]
_GOAL = 1.02  # of the hand-written loop's time


class Ready(list[Batch]):
    """Batches made beforehand, in memory from which a GPU can fetch them."""


def ready(place: Place, make: Callable[[], Batch], count: int = 20) -> Ready:
    batches = (make() for _ in range(count))
    return Ready(tuple(part.pin_memory() if place.on_gpu else part for part in one) for one in batches)


class Work:
    """What is trained: a model, its batches, and whether half precision is used."""

    def __init__(
        self, name: str, model: Callable[[], nn.Module], batches: Ready, *, half: bool = False
    ) -> None:
        self.name, self.model, self.batches, self.half = name, model, batches, half

    def loss(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half):
            return nn.functional.cross_entropy(model(x), y)


def works(place: Place) -> list[Work]:
    size, width, layers = place.pick(256, 16), place.pick(1024, 64), place.pick(8, 2)
    images = ready(place, lambda: (torch.randn(size, 3, 32, 32), torch.randint(10, (size,))))
    tokens = ready(
        place, lambda: (torch.randn(place.pick(8192, 64), width), torch.randint(10, (place.pick(8192, 64),)))
    )
    small = ready(place, lambda: (torch.randn(32, 16), torch.randint(10, (32,))))
    tiny = lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))  # noqa: E731
    return [
        Work("CNN", lambda: cnn(place.pick(64, 8)), images),
        Work("feed-forward, bf16", lambda: feed_forward(width, layers), tokens, half=True),
        Work("tiny MLP", tiny, small),
    ]


def by_hand(work: Work, place: Place, steps: int, report: int) -> Iterator[float]:
    """Seconds of each block of `steps` steps."""
    model = work.model().to(place.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    source = _endless(work.batches)
    total = torch.zeros((), device=place.device)
    while True:
        start = place.now()
        for step in range(steps):
            x, y = (part.to(place.device, non_blocking=True) for part in next(source))
            loss = work.loss(model, x, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
            if (step + 1) % report == 0:
                (total / report).item()
                total.zero_()
        yield place.now() - start


def _endless(batches: Ready) -> Iterator[Batch]:
    while True:
        yield from batches


def trial(work: Work, at_batch: Callable[[int], None]) -> type[PyTorchTrial]:
    class Trial(PyTorchTrial):
        def __init__(self, context: Untyped) -> None:
            self.context = context
            context.experimental.disable_dataset_reproducibility_checks()
            self.model = context.wrap_model(work.model())
            self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=1e-3))

        def build_training_data_loader(self) -> Ready:
            return work.batches

        def build_validation_data_loader(self) -> DataLoader:
            return DataLoader(list(zip(*work.batches[0], strict=True))[:8], batch_size=8)

        def train_batch(self, batch: Batch, epoch_idx: int, batch_idx: int) -> Untyped:  # noqa: ARG002
            at_batch(batch_idx)
            loss = work.loss(self.model, *batch)
            self.context.backward(loss)
            self.context.step_optimizer(self.optimizer)
            return {"loss": loss}

        def evaluate_batch(self, batch: Batch) -> Untyped:
            return {"validation_loss": work.loss(self.model, *batch)}

    return Trial


def throughput(place: Place) -> Figures:
    """Blocks of the harness and of the loop take turns, so that both meet the same machine."""
    figures: Figures = {}
    missed = []
    for work in works(place):
        for report in (100, 1):
            steps = place.pick({"CNN": 100, "feed-forward, bf16": 100}.get(work.name, 1000), 20)
            told = _turns(work, place, steps, report)
            figures[f"{work.name}, report every {report}"] = told
            if report == 100 and work.name != "tiny MLP" and told["ratio"] > _GOAL:
                missed.append(f"{work.name} takes {told['ratio']:.3f} of the loop's time")
    expect(place.short or not missed, "; ".join(missed))
    return figures


def _turns(work: Work, place: Place, steps: int, report: int) -> dict[str, float]:
    hand = by_hand(work, place, steps, report)
    ours: list[float] = []
    theirs: list[float] = []
    begun = [0.0]

    def at_batch(index: int) -> None:
        if index % steps == 0:
            if index:
                ours.append(place.now() - begun[0])
            theirs.append(next(hand))
            begun[0] = place.now()

    config = {"scheduling_unit": report, "checkpoint_policy": "none"}
    with folder(place) as here:
        here.drive(trial(work, at_batch), steps * place.pick(9, 4) + 1, config=config)
    ours, theirs = ours[1:], theirs[1:]  # the first are rehearsals
    differences = [(a - b) / steps * 1e6 for a, b in zip(ours, theirs, strict=False)]
    best = min(ours), min(theirs)
    return {
        "us by hand": round(best[1] / steps * 1e6, 1),
        "us added": round((best[0] - best[1]) / steps * 1e6, 2),
        "us added, median": round(statistics.median(differences), 2),
        "ratio": round(best[0] / best[1], 4),
        "steps a second": round(steps / best[0]),
    }


def memory(place: Place) -> Figures:
    """The most that tensors took on the GPU, with validation and a checkpoint, and in the loop alone."""
    if not place.on_gpu:
        return {"left out": "there is no GPU"}
    work = works(place)[1]
    peaks = []
    for run in (_hand_once, _ours_once):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(work, place)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    hand, ours = (peak / 2**20 for peak in peaks)
    expect(ours <= hand * 1.01 + 2, f"the harness takes {ours:.1f} MB at the most, the loop {hand:.1f}")
    return {"MB by hand": round(hand, 1), "MB with the harness": round(ours, 1)}


def _hand_once(work: Work, place: Place) -> None:
    next(by_hand(work, place, 50, 100))


def _ours_once(work: Work, place: Place) -> None:
    with folder(place) as here:
        here.drive(trial(work, lambda _: None), 50, config={"min_checkpoint_period": {"batches": 20}})


def checkpoint(place: Place) -> Figures:
    """How long training waits for a checkpoint of `size` MB that is written beside it."""
    size, every, stamps = place.pick(1024, 128), place.pick(2500, 40), []
    heavy = nn.ParameterList(torch.zeros(1 << 22).normal_() for _ in range(size // 16))
    heavy.requires_grad_(requires_grad=False)
    work = works(place)[0]
    light = work.model
    work.model = lambda: _Heavy(light(), heavy)

    def at_batch(_: int) -> None:
        stamps.append(place.now())

    config = {"min_checkpoint_period": {"batches": every}, "checkpoint_policy": "none"}
    with folder(place) as here:
        here.drive(trial(work, at_batch), 3 * every, config=config)
        resumed = _resume(work, place, here, 3 * every)
    gaps = [later - earlier for earlier, later in pairwise(stamps)]
    usual = statistics.median(gaps)
    holds = [round(gaps[save * every - 1] - usual, 4) for save in (1, 2)]
    expect(
        place.short or max(holds) <= 0.1, f"a checkpoint holds training for at most 0.1 s, and not {holds}"
    )
    return {
        "MB": size,
        "seconds held": holds,
        "seconds a step": round(usual, 4),
        "seconds to resume": resumed,
    }


def _resume(work: Work, place: Place, here: Folder, done: int) -> float:
    stamps: list[float] = []
    start = place.now()
    resumed = trial(work, lambda _: stamps.append(place.now()))
    here.drive(resumed, done + 1, run=1, checkpoints=(here.newest,), config={"checkpoint_policy": "none"})
    return round(stamps[0] - start, 3)


class _Heavy(nn.Module):
    def __init__(self, light: nn.Module, heavy: nn.ParameterList) -> None:
        super().__init__()
        self.light, self.heavy = light, heavy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.light(x)
