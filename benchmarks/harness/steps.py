"""What the harness adds to a step over a loop written by hand; both in one run, taking turns.

    python3 benchmarks/harness/steps.py [--cnn] [--frugal] [--blocks 15] [--steps 2000]

A tiny MLP, or with --cnn a small CNN on 32 pictures of 32 x 32 and a hundredth of the steps. Each line gives
the hand-written loop's time per step, what the harness adds (best block, and median of the differences of
neighbouring blocks), and the ratio of the best. Times are of this process's CPU, all threads, which other
programs disturb least. With --frugal the loop by hand drops its gradients as the harness does, without the
entry that torch's `zero_grad` makes in profiles: what is left is what the harness does besides. Only compare
figures of one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from by_hand import RECORDS, Ready, by_hand, data, now, pictures, ready, small_cnn, tiny_mlp
from torch import nn

from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext
from determined.pytorch._context import drop_gradients
from determined.pytorch._trainer import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import TensorDataset


@dataclass(frozen=True, slots=True)
class Work:
    """What both train, and how the loop by hand resets its gradients."""

    build: Callable[[], nn.Module]
    records: Callable[[], TensorDataset]
    zero: Callable[[torch.optim.Optimizer], None] = torch.optim.Optimizer.zero_grad


MLP, CNN = Work(tiny_mlp, data), Work(small_cnn, pictures)


def trial_class(
    work: Work, batches: Ready, steps: int, blocks: list[float], between: Callable[[], None]
) -> type[PyTorchTrial]:
    class Tiny(PyTorchTrial):
        def __init__(self, context: PyTorchTrialContext) -> None:
            self.context = context
            context.experimental.disable_dataset_reproducibility_checks()
            self.model = context.wrap_model(work.build())
            self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))
            self.start = 0.0

        def build_training_data_loader(self) -> Ready:
            return batches

        def build_validation_data_loader(self) -> DataLoader:
            return DataLoader(work.records(), batch_size=RECORDS)

        def train_batch(
            self,
            batch: tuple[torch.Tensor, ...],
            epoch_idx: int,  # noqa: ARG002  (called with keywords)
            batch_idx: int,
        ) -> dict[str, torch.Tensor]:
            if batch_idx % steps == 0:
                self._next_block()
            x, y = batch
            loss = nn.functional.mse_loss(self.model(x), y)
            self.context.backward(loss)
            self.context.step_optimizer(self.optimizer)
            return {"loss": loss}

        def _next_block(self) -> None:
            if self.start:
                blocks.append(now() - self.start)
            between()
            self.start = now()

        def evaluate_batch(self, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
            x, y = batch
            return {"loss": nn.functional.mse_loss(self.model(x), y)}

    return Tiny


def compare(work: Work, report: int, steps: int, blocks: int) -> str:
    """Alternate one block of each, so that both meet the same noise."""
    batches = ready(work.records())
    hand, ours, theirs = by_hand(batches, steps, report, work.build, work.zero), [], []
    trial = trial_class(work, batches, steps, ours, lambda: theirs.append(next(hand)))
    with tempfile.TemporaryDirectory() as folder:
        run_trial(trial, ChiefRun(_info(Path(folder), report, steps * (blocks + 1) + 1)))
    us = [(a - b) / steps * 1e6 for a, b in zip(ours[1:], theirs[1:], strict=False)]
    floor, best = min(theirs) / steps * 1e6, (min(ours) - min(theirs)) / steps * 1e6
    added = f"harness adds {best:+6.2f} best, {statistics.median(us):+6.2f} median"
    return f"report every {report:3}: by hand {floor:6.1f} us, {added}, ratio {min(ours) / min(theirs):.3f}"


def _info(folder: Path, report: int, length: int) -> RunInfo:
    (folder / "context").mkdir()
    return RunInfo(
        experiment_id=1,
        trial_id=1,
        run=0,
        trial_seed=0,
        slots=0,
        entrypoint="steps:Tiny",
        run_dir=str(folder),
        context_dir=str(folder / "context"),
        context_name="context",
        checkpoint_dir=str(folder / "checkpoints"),
        max_length=Length("batches", length),
        config={"scheduling_unit": report, "checkpoint_policy": "none"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cnn", action="store_true")
    parser.add_argument("--frugal", action="store_true")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    work, steps = (CNN, args.steps // 100) if args.cnn else (MLP, args.steps)
    work = replace(work, zero=drop_gradients) if args.frugal else work
    for report in (100, 1):
        print(compare(work, report, steps, args.blocks))


if __name__ == "__main__":
    main()
