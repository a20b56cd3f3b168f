"""Resume to the bit where features meet: a draw from all their combinations, the same at every call."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, WeightedRandomSampler

from determined.pytorch import DataLoader, LRScheduler, PyTorchCallback
from tests.unit.harness.pytorch.driving import Records
from tests.unit.harness.pytorch.test_resume import Logged, ShuffledBatches, check

Modes = LRScheduler.StepMode
AXES: dict[str, tuple[Any, ...]] = {
    "data": ("shuffled", "weighted", "batches", "torch"),
    "augmentation": ("none", "torch", "numpy", "python"),
    "precision": ("float32", "use_amp", "wrap_scaler", "bf16"),
    "schedule": (None, (Modes.STEP_EVERY_BATCH, 2), (Modes.STEP_EVERY_EPOCH, 1), (Modes.MANUAL_STEP, 1)),
    "optimizers": (1, 2),
    "frequency": (1, 2),
    "dialect": ("new", "0.12"),
    "clip": (False, True),
}


def fits(options: dict[str, Any]) -> bool:
    """The dialect of 0.12 had one optimizer and left precision and clipping to the harness."""
    simple = options["optimizers"] == 1 and options["precision"] == "float32" and not options["clip"]
    return options["dialect"] == "new" or simple


EVERY = [dict(zip(AXES, values, strict=True)) for values in product(*AXES.values())]
FITTING = [options for options in EVERY if fits(options)]
OLD = [options for options in FITTING if options["dialect"] == "0.12"]
DRAWN = random.Random(3).sample([options for options in FITTING if options not in OLD], 40)
DRAWN += random.Random(3).sample(OLD, 12)


class Augmented(Dataset[Any]):
    def __init__(self, kind: str) -> None:
        self.records, self.kind = Records(), kind

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        draws = {
            "none": lambda: 0.0,
            "torch": lambda: torch.rand(()).item(),
            "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
            "python": random.random,
        }
        return self.records[index] + draws[self.kind]()


def loader(options: dict[str, Any]) -> Any:
    data = Augmented(options["augmentation"])
    if options["data"] == "torch":
        return TorchDataLoader(data, batch_size=2, shuffle=True)
    if options["data"] == "weighted":
        return DataLoader(data, batch_size=2, sampler=WeightedRandomSampler([1.0] * 10, 10))
    if options["data"] == "batches":
        return DataLoader(data, batch_sampler=ShuffledBatches())
    return DataLoader(data, batch_size=2, shuffle=True)


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))


class Counting(PyTorchCallback):
    """Has a state that steers training."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_training_epoch_end(self, epoch_idx: int) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


class Mixed(Logged):
    def __init__(self, context: Any) -> None:
        self.context, options = context, self.options
        self.counting, self.scaler = Counting(), None
        if options["data"] == "torch":
            context.experimental.disable_dataset_reproducibility_checks()
        if options["precision"] == "use_amp":
            context.experimental.use_amp()
        if options["precision"] == "wrap_scaler":
            self.scaler = context.wrap_scaler(GradScaler("cpu", init_scale=8.0, growth_interval=3))
        self.models = [context.wrap_model(layers()) for _ in range(options["optimizers"])]
        self.optimizers = [
            context.wrap_optimizer(torch.optim.Adam(model.parameters(), lr=0.01)) for model in self.models
        ]
        if options["schedule"]:
            self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizers[0], 0.9)
            context.wrap_lr_scheduler(self.scheduler, *options["schedule"])

    def build_callbacks(self) -> Any:
        return {"counting": self.counting}

    def build_training_data_loader(self) -> Any:
        return loader(self.options)

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        losses = [self._trained(*both, batch) for both in zip(self.models, self.optimizers, strict=True)]
        if (
            self.scaler and (batch_idx + 1) % self.options["frequency"] == 0
        ):  # torch refuses it without a step
            self.scaler.update()
        if (
            self.options["schedule"]
            and self.options["schedule"][0] is Modes.MANUAL_STEP
            and batch_idx % 3 == 2
        ):
            self.scheduler.step()
        return {"loss": self._log(batch, sum(losses), batch_idx)}

    def _trained(self, model: nn.Module, optimizer: Any, batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options["precision"] == "bf16"):
            loss = model(batch).float().pow(2).mean() * (1 + self.counting.epochs)
        self.context.backward(self.scaler.scale(loss) if self.scaler else loss)
        clip = self._clip if self.options["clip"] and not self.scaler else None
        self.context.step_optimizer(optimizer, clip_grads=clip, scaler=self.scaler)
        return loss.detach()

    @staticmethod
    def _clip(parameters: Any) -> None:
        nn.utils.clip_grad_norm_(parameters, 0.5)

    def _log(self, batch: torch.Tensor, loss: Any, batch_idx: int) -> Any:
        self.log.batches.append(batch.flatten().tolist())
        self.log.losses.append(loss.item())
        states = (model.state_dict() for model in self.context.models)
        self.log.weights = {f"{n} {k}": v.clone() for n, state in enumerate(states) for k, v in state.items()}
        if self.log.leave_after == batch_idx + 1:
            self.folder.run.ask_to_stop()
        return loss

    def evaluate_batch(self, batch: torch.Tensor) -> Any:
        return {"validation_loss": self.context.models[0](batch).pow(2).mean()}


class OfTwelve(Mixed):
    """The same in the dialect of 0.12: model, optimizer, scheduler and step are the harness's affair."""

    def __init__(self, context: Any) -> None:
        self.context, self.counting = context, Counting()
        if self.options["data"] == "torch":
            context.experimental.disable_dataset_reproducibility_checks()

    def build_model(self) -> nn.Module:
        return layers()

    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.Adam(model.parameters(), lr=0.01)

    def create_lr_scheduler(self, optimizer: Any) -> Any:
        if not self.options["schedule"]:
            return None
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return LRScheduler(scheduler, *self.options["schedule"])

    def train_batch(self, batch: Any, model: nn.Module, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        loss = model(batch).pow(2).mean() * (1 + self.counting.epochs)
        self._log(batch, loss.detach(), batch_idx)
        return {"loss": loss}

    def evaluate_batch(self, batch: torch.Tensor, model: nn.Module) -> Any:  # type: ignore[override]
        return {"validation_loss": model(batch).pow(2).mean()}


def told(options: dict[str, Any]) -> str:
    return "-".join(str(getattr(value, "name", value)) for value in options.values())


@pytest.mark.parametrize("options", DRAWN, ids=map(told, DRAWN))
def test_a_mixture_of_features_resumes_to_the_bit(tmp_path: Any, options: dict[str, Any]) -> None:
    kind = OfTwelve if options["dialect"] == "0.12" else Mixed
    check(tmp_path, {**options, "trial": kind}, cuts=((7,),))
