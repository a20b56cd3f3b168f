"""Trials as people wrote them from Determined 0.12 to 0.38, each with another set of features."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Sequence, Union, cast  # noqa: UP035  (as in their time)

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import BatchSampler, Dataset, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import DataLoader as TorchDataLoader

import determined as det
from determined import pytorch
from determined.pytorch import (
    ClipGradsL2Norm,
    DataLoader,
    LRScheduler,
    PyTorchCallback,
    PyTorchTrial,
    PyTorchTrialContext,
    Reducer,
    TorchData,
)

HPARAMS = {
    "global_batch_size": 2,
    "lr": 0.01,
    "hidden": 4,
    "optimizer": {"name": "adam", "betas": [0.9, 0.99]},
}


class Pairs(Dataset[Any]):
    def __init__(self, count: int = 8) -> None:
        self.x = torch.linspace(-1, 1, count * 2).reshape(count, 2)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], int(self.x[index].sum() > 0)


def net(hidden: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))


class Classic(PyTorchTrial):
    """0.12.0: the harness owns model, optimizer and step; hyperparameters come from the context."""

    def __init__(self, context: det.TrialContext) -> None:
        self.context = context

    def build_model(self) -> nn.Module:
        model = net(self.context.get_hparam("hidden"))
        pytorch.reset_parameters(model)
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adadelta(model.parameters(), lr=self.context.get_hparam("lr"))

    def create_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        step = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return LRScheduler(step, step_mode=LRScheduler.StepMode.STEP_EVERY_EPOCH)

    def build_callbacks(self) -> Dict[str, PyTorchCallback]:  # noqa: UP006
        return {"clip": ClipGradsL2Norm(0.5)}

    def train_batch(self, batch: TorchData, model: nn.Module, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        batch = cast("tuple[torch.Tensor, torch.Tensor]", batch)
        data, labels = batch
        output = model(data)
        error = (output.argmax(1) != labels).float().mean()
        return {"loss": nn.functional.cross_entropy(output, labels), "train_error": error}

    def evaluate_batch(self, batch: TorchData, model: nn.Module) -> Any:  # type: ignore[override]
        data, labels = batch
        return {"validation_loss": nn.functional.cross_entropy(model(data), labels)}

    def build_training_data_loader(self) -> DataLoader:
        return DataLoader(Pairs(), batch_size=self.context.get_per_slot_batch_size(), shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        return DataLoader(Pairs(4), batch_size=self.context.get_per_slot_batch_size())


class ClassicWhole(Classic):
    """0.12: one tensor as the outcome, the whole data set at once, the scheduler by hand."""

    def create_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        return LRScheduler(
            torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), LRScheduler.StepMode.MANUAL_STEP
        )

    def train_batch(self, batch: TorchData, model: nn.Module, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        if batch_idx % 2:
            self.context.get_lr_scheduler().step()  # type: ignore[attr-defined]
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    evaluate_batch = PyTorchTrial.evaluate_batch  # type: ignore[assignment]

    def evaluate_full_dataset(self, data_loader: Any, model: nn.Module) -> Any:  # type: ignore[override]
        losses = [nn.functional.cross_entropy(model(x), y).item() for x, y in data_loader]
        return {"validation_loss": sum(losses) / len(losses)}


class Wrapped(PyTorchTrial):
    """0.12.13 and later: the trial wraps and steps. The base of those below."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        self.model = self.context.wrap_model(net(self.context.get_hparam("hidden")))
        self.optimizer = self.context.wrap_optimizer(
            torch.optim.Adam(self.model.parameters(), lr=self.context.get_hparam("lr"))
        )

    def build_training_data_loader(self) -> Any:
        return DataLoader(Pairs(), batch_size=self.context.get_per_slot_batch_size())

    def build_validation_data_loader(self) -> Any:
        return DataLoader(Pairs(4), batch_size=self.context.get_per_slot_batch_size())

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        data, labels = batch
        loss = nn.functional.cross_entropy(self.model(data), labels)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch: TorchData) -> Any:  # type: ignore[override]
        data, labels = batch
        output = self.model(data)
        return {
            "validation_loss": nn.functional.cross_entropy(output, labels).item(),
            "accuracy": (output.argmax(1) == labels).numpy().mean(),
        }


class Adversarial(Wrapped):
    """0.12.13: two models, two optimizers, a graph that is kept, one scheduler an optimizer."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        self.other = context.wrap_model(nn.Linear(2, 2))
        self.other_optimizer = context.wrap_optimizer(torch.optim.SGD(self.other.parameters(), lr=0.1))
        for optimizer in (self.optimizer, self.other_optimizer):
            context.wrap_lr_scheduler(
                torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
                step_mode=LRScheduler.StepMode.STEP_EVERY_EPOCH,
            )

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        data, labels = batch
        loss = nn.functional.cross_entropy(self.model(self.other(data)), labels)
        self.context.backward(loss, retain_graph=True)
        self.context.step_optimizer(
            self.other_optimizer, clip_grads=lambda p: nn.utils.clip_grad_norm_(p, 1.0)
        )
        again = nn.functional.cross_entropy(self.model(self.other(data).detach()), labels)
        self.context.backward(again)
        self.context.step_optimizer(self.optimizer)
        return {"g_loss": loss, "d_loss": again}


class OwnSampler(Wrapped):
    """0.13: samplers of the package itself, given to the loader as a batch sampler."""

    def build_training_data_loader(self) -> Any:
        shuffled = pytorch.ReproducibleShuffleSampler(SequentialSampler(Pairs()), seed=5)
        return DataLoader(Pairs(), batch_sampler=BatchSampler(shuffled, 2, drop_last=True))

    def build_validation_data_loader(self) -> Any:
        batches = BatchSampler(SequentialSampler(Pairs(4)), 2, drop_last=False)
        return DataLoader(Pairs(4), batch_sampler=pytorch.adapt_batch_sampler(batches))


class Amp(Wrapped):
    """0.14.3: mixed precision by one call."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        context.experimental.use_amp()
        super().__init__(context)


class OwnScaler(Wrapped):
    """0.14.3: mixed precision by hand."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        self.scaler = context.wrap_scaler(GradScaler("cpu", enabled=False))
        super().__init__(context)

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.context.backward(self.scaler.scale(loss))
        self.context.step_optimizer(self.optimizer, scaler=self.scaler)
        self.scaler.update()
        return {"loss": loss}


class BatchIdx(Wrapped):
    """0.14.5: a batch number in validation, a scheduler that steps now and then."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        context.wrap_lr_scheduler(
            torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10),
            LRScheduler.StepMode.STEP_EVERY_BATCH,
            frequency=2,
        )

    def evaluate_batch(self, batch: TorchData, batch_idx: int) -> Any:
        return {"validation_loss": super().evaluate_batch(batch)["validation_loss"], "index": batch_idx}


class Lines(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Pairs()[index] for index in range(8))


class Streamed(Wrapped):
    """0.16.5: loaders of torch over an iterable data set, batches moved by the trial."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        context.experimental.disable_dataset_reproducibility_checks()
        context.experimental.disable_auto_to_device()

    def build_training_data_loader(self) -> Any:
        return TorchDataLoader(Lines(), batch_size=2)

    def build_validation_data_loader(self) -> Any:
        return TorchDataLoader(Lines(), batch_size=2)

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        return super().train_batch(self.context.to_device(batch), epoch_idx, batch_idx)


class EveryStep(Wrapped):
    """0.17.0: a scheduler that follows the optimizer; gradients are summed, not averaged."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context
        self.model = context.wrap_model(net())
        self.optimizer = context.wrap_optimizer(
            torch.optim.SGD(self.model.parameters(), lr=0.1), average_aggregated_gradients=False
        )
        context.wrap_lr_scheduler(
            torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9),
            LRScheduler.StepMode.STEP_EVERY_OPTIMIZER_STEP,
        )


class Confusion(pytorch.MetricReducer):
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.counts = np.zeros((2, 2))

    def update(self, labels: Any, output: Any) -> None:
        for label, guess in zip(labels, output.argmax(1), strict=True):
            self.counts[label, guess] += 1

    def per_slot_reduce(self) -> Any:
        return self.counts

    def cross_slot_reduce(self, per_slot_metrics: Sequence[Any]) -> Any:
        total = np.sum(per_slot_metrics, axis=0)
        return {"right": total.trace(), "wrong": total.sum() - total.trace()}


class Reduced(Wrapped):
    """Reducers in both forms, and a metric of several numbers."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        self.confusion = context.wrap_reducer(Confusion(), for_training=False)
        self.largest = context.wrap_reducer(max, name="largest")

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        self.largest.update(batch[0].max().item())
        return {**super().train_batch(batch, epoch_idx, batch_idx), "vector": torch.ones(3)}

    def evaluate_batch(self, batch: TorchData) -> Any:  # type: ignore[override]
        self.confusion.update(batch[1], self.model(batch[0]))
        self.largest.update(batch[0].max().item())
        return {}


class Named(Wrapped):
    """A reducer for each metric."""

    def evaluation_reducer(self) -> Union[Reducer, Dict[str, Reducer]]:  # noqa: UP006, UP007
        return {"validation_loss": Reducer.MAX, "accuracy": Reducer.MIN}


class Sample(NamedTuple):
    image: Any
    label: Any


class Nested(Wrapped):
    """Batches of named tuples in dicts, with texts beside tensors and a length of their own."""

    def build_training_data_loader(self) -> Any:
        data = [{"sample": Sample(*Pairs()[index]), "path": f"{index}.png"} for index in range(8)]
        return DataLoader(data, batch_size=2)  # type: ignore[arg-type]

    def get_batch_length(self, batch: Any) -> int:
        return len(batch["path"])

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        assert isinstance(batch["sample"], Sample)
        assert batch["path"][0].endswith(".png")
        return super().train_batch(tuple(batch["sample"]), epoch_idx, batch_idx)


class OnPlateau(PyTorchCallback):
    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.seen = scheduler, 0

    def on_validation_end(self, metrics: Dict[str, Any]) -> None:  # noqa: UP006
        self.scheduler.step(metrics["validation_loss"])
        self.seen += 1

    def state_dict(self) -> Dict[str, Any]:  # noqa: UP006
        return {"seen": self.seen, "rates": np.array([self.seen])}

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:  # noqa: UP006
        self.seen = state_dict["seen"]


class Plateau(Wrapped):
    """A scheduler that a callback steps after validation."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        self.plateau = context.wrap_lr_scheduler(
            torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0),
            LRScheduler.StepMode.MANUAL_STEP,
        )

    def build_callbacks(self) -> Dict[str, PyTorchCallback]:  # noqa: UP006
        return {"plateau": OnPlateau(self.plateau)}


class Curious(Wrapped):
    """Asks the context all that it can be asked."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        assert context.get_hparam("optimizer")["betas"] == [0.9, 0.99]
        assert set(context.get_hparams()) == set(HPARAMS)
        assert (context.get_global_batch_size(), context.get_per_slot_batch_size()) == (2, 2)
        assert context.get_experiment_config()["description"].endswith("styles")
        assert context.get_data_config() == {"path": "/data"}
        distributed = context.distributed
        ranks = distributed.get_rank(), distributed.get_local_rank(), distributed.get_size()
        assert (*ranks, distributed.get_num_agents()) == (0, 0, 1, 1)
        assert context.get_initial_batch() in {0, 1, 6}

    def train_batch(self, batch: TorchData, epoch_idx: int, batch_idx: int) -> Any:
        context = self.context
        assert (context.current_train_epoch(), context.current_train_batch()) == (epoch_idx, batch_idx)
        assert (context.is_epoch_start(), context.is_epoch_end()) == (batch_idx % 4 == 0, batch_idx % 4 == 3)
        context.get_tensorboard_writer().add_scalar("mine/batch", batch_idx, batch_idx)
        assert context.get_tensorboard_path()
        assert not context.get_stop_requested()
        assert min(context.get_experiment_id(), context.get_trial_id(), context.get_trial_seed()) >= 0
        return super().train_batch(batch, epoch_idx, batch_idx)


class Profiled(Wrapped):
    """torch's profiler, stepped by the harness."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        super().__init__(context)
        context.set_profiler(
            activities=[torch.profiler.ProfilerActivity.CPU],
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1),
        )


class Shuffled(Wrapped):
    """Options of torch's loader: a sampler, a collate function, a last batch that is dropped."""

    def build_training_data_loader(self) -> Any:
        def collate(items: Any) -> Any:
            return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])

        data = Pairs(9)
        return DataLoader(data, 2, sampler=RandomSampler(data), collate_fn=collate, drop_last=True)


STYLES = [
    Classic,
    ClassicWhole,
    Wrapped,
    Adversarial,
    OwnSampler,
    Amp,
    OwnScaler,
    BatchIdx,
    Streamed,
    EveryStep,
    Reduced,
    Named,
    Nested,
    Plateau,
    Curious,
    Profiled,
    Shuffled,
]
