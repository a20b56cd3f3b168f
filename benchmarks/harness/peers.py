"""What trainers add to a step over a loop written by hand, each in a process of its own.

    python3 benchmarks/harness/peers.py [--python PYTHON] [--blocks 9] [--steps 1000] [NAME ...]

NAME is one of ours, determined, lightning, accelerate; by default all. PYTHON is that of an environment with
those packages; what is not installed there is left out with a word. Every process alternates blocks of its
trainer with blocks of the hand-written loop, so only the ratios of one process should be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve()
HARNESS = HERE.parents[2] / "harness"
NAMES = ("ours", "determined", "lightning", "accelerate")


class Turns:
    """Called at every step of a trainer: times its blocks, with one of the hand-written loop after each."""

    def __init__(self, steps: int, report: int) -> None:
        from by_hand import by_hand, now, ready

        self.batches = ready()
        self.own: list[float] = []
        self.hand: list[float] = []
        self._now, self._steps, self._start = now, steps, 0.0
        self._by_hand = by_hand(self.batches, steps, report)

    def step(self, number: int) -> None:
        if number % self._steps == 0:
            if self._start:
                self.own.append(self._now() - self._start)
            self.hand.append(next(self._by_hand))
            self._start = self._now()

    def told(self) -> dict[str, float]:
        """Microseconds a step; the first block of either is a rehearsal."""
        own, hand = (min(times[1:]) / self._steps * 1e6 for times in (self.own, self.hand))
        median = statistics.median((a - b) / self._steps for a, b in zip(self.own[1:], self.hand[1:])) * 1e6  # noqa: B905
        return {"hand": hand, "added": own - hand, "median": median, "ratio": own / hand}


def ours(turns: Turns, steps: int, blocks: int, report: int) -> None:
    _trial(turns, steps * blocks + 1, report)


def determined(turns: Turns, steps: int, blocks: int, report: int) -> None:
    import determined

    assert not hasattr(determined, "__detbuild__"), "this is not Determined's own package"
    _trial(turns, steps * blocks + 1, report)


def _trial(turns: Turns, length: int, report: int) -> None:
    """The same trial and the same calls for both: they have one API."""
    from by_hand import RECORDS, data, tiny_mlp
    from torch import nn, optim

    from determined import pytorch

    class Tiny(pytorch.PyTorchTrial):
        def __init__(self, context: pytorch.PyTorchTrialContext) -> None:
            self.context = context
            context.experimental.disable_dataset_reproducibility_checks()
            self.model = context.wrap_model(tiny_mlp())
            self.optimizer = context.wrap_optimizer(optim.SGD(self.model.parameters(), lr=0.01))

        def build_training_data_loader(self) -> object:
            return _Endless(turns.batches)

        def build_validation_data_loader(self) -> object:
            return pytorch.DataLoader(data(), batch_size=RECORDS)

        def train_batch(self, batch: object, epoch_idx: int, batch_idx: int) -> object:  # noqa: ARG002
            turns.step(batch_idx)
            x, y = batch
            loss = nn.functional.mse_loss(self.model(x), y)
            self.context.backward(loss)
            self.context.step_optimizer(self.optimizer)
            return {"loss": loss}

        def evaluate_batch(self, batch: object) -> object:
            x, y = batch
            return {"validation_loss": nn.functional.mse_loss(self.model(x), y)}

    with pytorch.init(enable_tensorboard_logging=False) as context:
        trainer = pytorch.Trainer(Tiny(context), context)
        lengths = {"max_length": pytorch.Batch(length), "reporting_period": pytorch.Batch(report)}
        trainer.fit(**lengths, checkpoint_policy="none")


class _Endless(list):
    """Determined does not begin a loader again."""

    def __iter__(self) -> object:
        while True:
            yield from super().__iter__()


def lightning(turns: Turns, steps: int, blocks: int, report: int) -> None:
    import lightning as L  # noqa: N812
    from by_hand import tiny_mlp
    from lightning.pytorch.loggers import CSVLogger
    from torch import nn, optim

    class Tiny(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny_mlp()

        def training_step(self, batch: object, batch_idx: int) -> object:  # noqa: ARG002
            turns.step(self.global_step)
            x, y = batch
            loss = nn.functional.mse_loss(self.model(x), y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> object:
            return optim.SGD(self.parameters(), lr=0.01)

    trainer = L.Trainer(
        max_steps=steps * blocks + 1,
        log_every_n_steps=report,
        logger=CSVLogger("."),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Tiny(), turns.batches)


def accelerate(turns: Turns, steps: int, blocks: int, report: int) -> None:
    import torch
    from accelerate import Accelerator
    from by_hand import data, tiny_mlp
    from torch import nn, optim

    accelerator = Accelerator(cpu=True)
    model = tiny_mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    model, optimizer, loader = accelerator.prepare(
        model, optimizer, torch.utils.data.DataLoader(data(), batch_size=32)
    )
    del loader  # batches are made beforehand for all
    source = iter(_Endless(turns.batches))
    for number in range(steps * blocks + 1):
        turns.step(number)
        x, y = next(source)
        loss = nn.functional.mse_loss(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if (number + 1) % report == 0:
            loss.item()


def one(name: str, steps: int, blocks: int, report: int) -> None:
    import torch

    torch.set_num_threads(1)
    trainer: Callable[[Turns, int, int, int], None] = globals()[name]
    turns = Turns(steps, report)
    trainer(turns, steps, blocks, report)
    print(json.dumps(turns.told()))


def compare(name: str, report: int, args: argparse.Namespace) -> str:
    """One line about one trainer."""
    path = [str(HERE.parent), *([str(HARNESS)] if name == "ours" else [])]
    call = [
        args.python,
        HERE,
        "--only",
        name,
        "--report",
        report,
        "--blocks",
        args.blocks,
        "--steps",
        args.steps,
    ]
    # two directories: Determined copies the working directory into the storage under its home, permanently
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as here:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HOME": home}
        done = subprocess.run(
            [str(word) for word in call],
            capture_output=True,
            text=True,
            check=False,
            cwd=here,
            env=environment,
        )
    if done.returncode:
        return f"{name:12} left out: {(done.stderr.strip().splitlines() or ['it failed'])[-1][:200]}"
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return (
        f"{name:12} report every {report:3}: by hand {told['hand']:6.1f} us, "
        f"adds {told['added']:+8.2f} best, {told['median']:+8.2f} median, ratio {told['ratio']:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        one(args.only, args.steps, args.blocks, args.report)
        return
    for report in (100, 1):
        for name in args.names:
            print(compare(name, report, args), flush=True)


if __name__ == "__main__":
    main()
