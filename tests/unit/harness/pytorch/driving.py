"""Runs trials in this process through the real run folder, and gives back what they recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from determined._contract.records import Checkpoint, ExitReason, Record, Training, Validation, decode
from determined._contract.run_info import Length, RunInfo
from determined._run.run import ChiefRun
from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext
from determined.pytorch._trainer import run_trial

if TYPE_CHECKING:
    from collections.abc import Mapping


class Records(Dataset[Any]):
    """Record i is i; `noise` adds what is random in reading it."""

    def __init__(self, count: int = 10, *, noise: bool = False) -> None:
        self.count, self.noise = count, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), torch.rand(()).item() if self.noise else 0.0])


class TinyTrial(PyTorchTrial):
    """A line through ten records, two to a batch: five batches an epoch. Subclasses change a part."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        self.model = context.wrap_model(nn.Linear(2, 1))
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))

    def build_training_data_loader(self) -> Any:
        return DataLoader(Records(), batch_size=2)

    def build_validation_data_loader(self) -> Any:
        return DataLoader(Records(4), batch_size=2)

    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        loss = self.model(batch).pow(2).mean()
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch: torch.Tensor) -> Any:
        return {"validation_loss": self.model(batch).pow(2).mean()}


@dataclass(frozen=True)
class Outcome:
    reason: ExitReason
    records: list[Record]

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def training(self) -> list[tuple[int, Mapping[str, object]]]:
        return [(record.steps_completed, record.metrics) for record in self.of(Training)]

    @property
    def validations(self) -> list[tuple[int, Mapping[str, object]]]:
        return [(record.steps_completed, record.metrics) for record in self.of(Validation)]

    @property
    def checkpoints(self) -> list[int]:
        return [record.steps_completed for record in self.of(Checkpoint)]

    @property
    def newest(self) -> str:
        return self.of(Checkpoint)[-1].uuid


class Folder:
    """One experiment's place in a temporary directory; every call of `drive` is a run of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._runs = 0
        self.run: ChiefRun | None = None
        (path / "context").mkdir()

    @classmethod
    def again(cls, path: Path) -> Folder:
        """One that other processes have used."""
        folder = cls.__new__(cls)
        folder.path, folder.checkpoints, folder.run = path, path / "checkpoints", None
        folder._runs = len(list(path.glob("run-*")))
        return folder

    def info(self, **fields: Any) -> RunInfo:
        run_dir = self.path / f"run-{self._runs}"
        run_dir.mkdir()
        defaults: dict[str, Any] = {
            "experiment_id": 1,
            "trial_id": 1,
            "run": self._runs,
            "trial_seed": 7,
            "slots": 0,
            "entrypoint": "model_def:Trial",
            "run_dir": str(run_dir),
            "context_dir": str(self.path / "context"),
            "context_name": "context",
            "checkpoint_dir": str(self.checkpoints),
            "max_length": Length("batches", 10),
        }
        self._runs += 1
        return RunInfo(**{**defaults, **fields})

    def drive(self, trial_class: type[PyTorchTrial], **fields: Any) -> Outcome:
        info = self.info(**fields)
        self.run = ChiefRun(info)
        reason = run_trial(trial_class, self.run)
        lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines(keepends=True)
        return Outcome(reason, [decode(line).record for line in lines])

    def state(self, uuid: str) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(self.checkpoints / uuid / "state_dict.pth", weights_only=True)
        return state
