"""What a run costs besides its steps: start-up, memory, the hold of a checkpoint, resume, skipping far ahead.

    python3 benchmarks/harness/life.py [--mb 1024]

A small model beside `--mb` megabytes of frozen weights is trained, saved twice on the way, and resumed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.records import Checkpoint, decode
from determined._contract.run_info import Length, RunInfo

if TYPE_CHECKING:
    from determined.pytorch import PyTorchTrial

EVERY = 1000  # batches between two checkpoints


def trial_class(megabytes: int, stamps: list[float]) -> type[PyTorchTrial]:
    import torch
    from torch import nn

    from determined.pytorch import DataLoader, PyTorchTrial

    class Heavy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
            parts = (torch.zeros(1 << 22).normal_() for _ in range(megabytes // 16))
            self.large = nn.ParameterList(nn.Parameter(part, requires_grad=False) for part in parts)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.small(x)

    class Trial(PyTorchTrial):
        def __init__(self, context: object) -> None:
            self.context = context
            self.model = context.wrap_model(Heavy())
            self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.small.parameters()))

        def build_training_data_loader(self) -> DataLoader:
            return DataLoader(torch.ones(6400, 64), batch_size=64, shuffle=True)

        def build_validation_data_loader(self) -> DataLoader:
            return DataLoader(torch.ones(64, 64), batch_size=64)

        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> object:  # noqa: ARG002
            stamps.append(time.monotonic())
            for _ in range(20):  # so that a checkpoint is written while it is trained
                loss = self.model(batch).pow(2).mean()
                self.context.backward(loss)
                self.context.step_optimizer(self.optimizer)
            return {"loss": loss}

        def evaluate_batch(self, batch: torch.Tensor) -> object:
            return {"validation_loss": self.model(batch).pow(2).mean()}

    return Trial


def info(folder: Path, batches: int) -> RunInfo:
    (folder / "context").mkdir()
    return RunInfo(
        experiment_id=1,
        trial_id=1,
        run=0,
        trial_seed=0,
        slots=0,
        entrypoint="life:Trial",
        run_dir=str(folder),
        context_dir=str(folder / "context"),
        context_name="context",
        checkpoint_dir=str(folder / "checkpoints"),
        max_length=Length("batches", batches),
        config={"min_checkpoint_period": {"batches": EVERY}, "checkpoint_policy": "none"},
    )


def measure(folder: Path, megabytes: int, begun: float) -> None:
    from determined._run.run import ChiefRun
    from determined.pytorch._trainer import run_trial

    stamps: list[float] = []
    trial = trial_class(megabytes, stamps)
    described = info(folder, 3 * EVERY)
    run_trial(trial, ChiefRun(described))
    print(f"start-up to first batch    {stamps[0] - begun:8.2f} s")
    gaps = [later - earlier for earlier, later in pairwise(stamps)]
    usual = statistics.median(gaps)
    for save in (1, 2):
        hold = gaps[save * EVERY - 1] - usual
        print(f"checkpoint {save} holds the loop {hold:8.3f} s of {megabytes} MB")
    print(f"memory at the most         {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:8} MB")
    lines = (folder / "events.jsonl").read_bytes().splitlines()
    newest = [line.record.uuid for line in map(decode, lines) if isinstance(line.record, Checkpoint)][-1]
    stamps.clear()
    begun = time.monotonic()
    longer = replace(described, run=1, max_length=Length("batches", 3 * EVERY + 1), checkpoints=(newest,))
    run_trial(trial, ChiefRun(longer))
    print(f"resume to first batch      {stamps[0] - begun:8.2f} s")


def skip(batches: int) -> None:
    import torch

    from determined.pytorch import DataLoader

    loader = DataLoader(torch.arange(64_000), batch_size=64, shuffle=True)
    begun = time.monotonic()
    next(iter(loader.get_data_loader(repeat=True, skip=batches, seed=1)))
    print(f"skip to batch {batches:,}    {time.monotonic() - begun:8.3f} s")


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=1024)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.mb, begun)
    skip(1_000_000)


if __name__ == "__main__":
    main()
