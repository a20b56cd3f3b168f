"""What the checks share: where a trial runs, its data, its models, and runs of it in this process."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from determined._contract.records import Checkpoint, Validation, decode
from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined.pytorch._trainer import run_trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.pytorch._device import Untyped


@dataclass(frozen=True)
class Place:
    device: str
    short: bool

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def pick(self, full: int, short: int) -> int:
        return short if self.short else full

    def settle(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def now(self) -> float:
        """After all that the device was given."""
        self.settle()
        return time.perf_counter()


class Missed(Exception):  # noqa: N818  (it is an answer)
    """A check's promise does not hold."""


class Absent(Exception):  # noqa: N818
    """The machine lacks what a check needs."""


def expect(holds: bool, promise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Missed(promise)


def pictures(count: int) -> TensorDataset:
    """Ten classes of 3 x 32 x 32 pictures: each a pattern of its own under noise."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(10, 3, 32, 32, generator=generator)
    labels = torch.arange(count) % 10
    return TensorDataset(patterns[labels] + torch.randn(count, 3, 32, 32, generator=generator), labels)


def cnn(width: int = 32, dropout: float = 0.1) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for step in range(3):
        out = width << step
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels * 16, 10))


class Block(nn.Module):
    """The feed-forward half of a transformer's layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.wide(self.norm(x))


def feed_forward(width: int, layers: int) -> nn.Module:
    return nn.Sequential(*(Block(width) for _ in range(layers)), nn.Linear(width, 10))


class Folder:
    """The place of one trial; each call of `drive` is a run of it."""

    def __init__(self, path: Path, place: Place) -> None:
        self.path, self._slots = path, int(place.on_gpu)
        (path / "context").mkdir(parents=True, exist_ok=True)
        self.run: ChiefRun | None = None

    def info(self, batches: int, **fields: Untyped) -> RunInfo:
        run_dir = Path(tempfile.mkdtemp(prefix="run-", dir=self.path))
        told: dict[str, Any] = {
            "experiment_id": 1,
            "trial_id": 1,
            "run": 0,
            "trial_seed": 7,
            "slots": self._slots,
            "entrypoint": "check:Trial",
            "run_dir": str(run_dir),
            "context_dir": str(self.path / "context"),
            "context_name": "context",
            "checkpoint_dir": str(self.path / "checkpoints"),
            "max_length": Length("batches", batches),
            **fields,
        }
        return RunInfo(**told)

    def drive(self, trial_class: type, batches: int, **fields: Untyped) -> list[Any]:
        """Train, and return the records of the run."""
        info = self.info(batches, **fields)
        self.run = ChiefRun(info)
        run_trial(trial_class, self.run)
        self.run.close()
        lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines(keepends=True)
        return [decode(line).record for line in lines]

    @property
    def newest(self) -> str:
        """Uuid of the newest checkpoint, also of one that another process wrote."""
        saved = (self.path / "checkpoints").glob("*/manifest.json")
        return max(saved, key=lambda path: path.stat().st_mtime_ns).parent.name


def newest_of(records: list[Any]) -> str:
    return [record.uuid for record in records if isinstance(record, Checkpoint)][-1]


def validations(records: list[Any]) -> list[dict[str, Any]]:
    return [dict(record.metrics) for record in records if isinstance(record, Validation)]


@contextmanager
def folder(place: Place) -> Iterator[Folder]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as path:
        yield Folder(Path(path), place)
