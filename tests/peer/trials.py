"""Trials as data: one description makes the same trial under Determined and under detbuild.

Only names that both have are used here. `random_case` makes descriptions from a seed.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data import DataLoader as TorchDataLoader

from determined.pytorch import (
    DataLoader,
    LRScheduler,
    MetricReducer,
    PyTorchCallback,
    PyTorchTrial,
    Reducer,
    samplers,
)

Case = dict[str, Any]
SEED = 7
OWN_ORDERS = ("buckets", "urn", "in-place", "reproducible")
DEFAULTS: Case = {
    "batches": 13,  # to train
    "records": 20,
    "batch_size": 3,
    "aggregation": 1,
    "validate": 0,  # batches between validations; 0: at the end only
    "checkpoint": 0,
    "report": 5,
    "initial": False,  # validate before training
    "dropout": 0.5,
    "noise": [],  # what the data set draws from: torch, numpy, python
    "augment": False,  # draws in train_batch, from all three
    "workers": 0,
    "prefetch": None,
    "order": "sequence",
    "drop_last": False,
    "generator": False,
    "worker_init": False,
    "optimizers": 1,
    "optimizer": "sgd",
    "scheduler": None,  # the name of a mode
    "frequency": 1,
    "clip": False,
    "full": False,  # evaluate_full_dataset
    "foreign": None,  # a loader of torch's own: map or stream
    "validation_workers": 0,
    "validation_shuffle": False,
    "validation_noise": False,
    "persistent": False,
    "reducer": None,  # of validation metrics
    "custom": False,  # a reducer of the trial's own
    "metrics": "tensors",
    "callbacks": False,  # that draw
    "old": False,  # the dialect of 0.12; under Determined 0.38 the same trial in the later one
}


class Records(Dataset[Any]):
    def __init__(self, count: int, noise: list[str]) -> None:
        self.count, self.noise = count, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = sum(drawn(kind) for kind in self.noise)
        return torch.tensor([index / self.count, 1.0 + noise], dtype=torch.float32)


class Stream(IterableDataset[Any]):
    def __init__(self, count: int, noise: list[str]) -> None:
        self.records = Records(count, noise)

    def __iter__(self) -> Any:
        return (self.records[index] for index in np.random.permutation(len(self.records)))  # noqa: NPY002


def drawn(kind: str) -> float:
    if kind == "torch":
        return float(torch.randn(()))
    return float(np.random.standard_normal()) if kind == "numpy" else random.random()  # noqa: NPY002


class Buckets:
    """Not a Sampler of torch: batches of several sizes in another order each pass, and no length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        starts = list(range(0, self.count - 4, 4))
        random.shuffle(starts)
        for start in starts:
            yield list(range(start, start + 2 + start % 3))


class Urn:
    """Draws each batch when it is asked for, from the records that are left."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count // 3

    def __iter__(self) -> Any:
        left = list(range(self.count))
        for _ in range(len(self)):
            yield [left.pop(int(np.random.randint(len(left)))) for _ in range(3)]  # noqa: NPY002


class InPlace:
    """Shuffles its own list again in each pass, which it counts, and promises more batches than it has."""

    def __init__(self, count: int) -> None:
        self.indices, self.passes = list(range(count)), 0

    def __len__(self) -> int:
        return len(self.indices) // 2 + 1

    def __iter__(self) -> Any:
        self.passes += 1
        random.shuffle(self.indices)
        return iter([self.indices[at : at + 2] for at in range(self.passes % 2, len(self.indices) - 1, 2)])


def order(case: Case, data: Records) -> Case:
    """The arguments of a DataLoader that say in which order to read."""
    kind, size, count = case["order"], case["batch_size"], len(data)
    own = torch.Generator().manual_seed(11) if case["generator"] else None
    if kind in {"sequence", "shuffle"}:
        options: Case = {"batch_size": size, "shuffle": kind == "shuffle", "generator": own}
    elif kind == "buckets":
        return {"batch_sampler": Buckets(count)}
    elif kind == "urn":
        return {"batch_sampler": Urn(count)}
    elif kind == "in-place":
        return {"batch_sampler": InPlace(count)}
    elif kind == "reproducible":
        inner = samplers.ReproducibleShuffleSampler(SequentialSampler(data), 5)
        return {"batch_sampler": BatchSampler(inner, size, case["drop_last"])}
    else:
        sampler: Any = {
            "random": lambda: RandomSampler(data, generator=own),
            "replacement": lambda: RandomSampler(data, replacement=True, num_samples=17, generator=own),
            "more": lambda: RandomSampler(data, num_samples=count + 5, generator=own),
            "subset": lambda: SubsetRandomSampler(range(1, count), generator=own),
            "weighted": lambda: WeightedRandomSampler([1.0 + n % 3 for n in range(count)], 14, generator=own),
        }[kind]()
        options = {"batch_size": size, "sampler": sampler, "generator": own}
    return {**options, "drop_last": case["drop_last"]}


def start_worker(worker: int) -> None:
    random.seed(worker + torch.initial_seed() % 1000)


class Drawing(PyTorchCallback):
    def on_training_start(self) -> None:
        random.random()

    def on_training_epoch_start(self, epoch_idx: int) -> None:
        torch.rand(1 + epoch_idx)

    def on_training_epoch_end(self, epoch_idx: int) -> None:
        np.random.rand(2)  # noqa: NPY002

    def on_validation_start(self) -> None:
        torch.rand(3)

    def on_validation_end(self, metrics: Any) -> None:
        random.random()


class Spread(MetricReducer):
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.values: list[float] = []

    def update(self, value: float) -> None:
        self.values.append(value)

    def per_slot_reduce(self) -> Any:
        return self.values

    def cross_slot_reduce(self, per_slot_metrics: Any) -> Any:
        values = [value for values in per_slot_metrics for value in values]
        return max(values) - min(values) if values else 0.0


class Base(PyTorchTrial):
    """What all the trials share. Subclasses have `case`."""

    case: Case

    def net(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Dropout(self.case["dropout"]), nn.Linear(4, 1))

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.case["optimizer"] == "adam":
            return torch.optim.Adam(model.parameters(), lr=0.02)
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.7)

    def build_callbacks(self) -> Any:
        return {"drawing": Drawing()} if self.case["callbacks"] else {}

    def build_training_data_loader(self) -> Any:
        case = self.case
        data = Records(case["records"], case["noise"])
        common = {
            "num_workers": case["workers"],
            "worker_init_fn": start_worker if case["worker_init"] else None,
            **({"prefetch_factor": case["prefetch"]} if case["prefetch"] else {}),
        }
        if case["foreign"] == "stream":
            stream = Stream(case["records"], case["noise"])
            return TorchDataLoader(stream, batch_size=case["batch_size"], **common)
        kind = TorchDataLoader if case["foreign"] else DataLoader
        return kind(data, **order(case, data), **common)

    def build_validation_data_loader(self) -> Any:
        case = self.case
        noise = ["torch", "numpy"] if case["validation_noise"] else []
        kind = TorchDataLoader if case["foreign"] else DataLoader
        return kind(
            Records(8, noise),
            batch_size=3,
            shuffle=case["validation_shuffle"],
            num_workers=case["validation_workers"],
            persistent_workers=case["persistent"] and case["validation_workers"] > 0,
        )

    def evaluation_reducer(self) -> Any:
        reducer = self.case["reducer"]
        return Reducer.AVG if reducer is None else {"loss": Reducer[reducer], "each": Reducer.AVG}

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        if self.case["augment"]:
            batch = batch + torch.randn_like(batch) * random.random() * float(np.random.rand())  # noqa: NPY002
        return (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean()

    def training_metrics(self, loss: torch.Tensor, batch_idx: int) -> Any:
        return {
            "tensors": {"loss": loss, "double": loss.double() / 3, "whole": torch.tensor(batch_idx)},
            "numbers": {"loss": loss.item(), "third": batch_idx / 3, "flag": batch_idx % 2 == 0},
            "arrays": {"loss": loss, "each": loss.detach().reshape(1) / 7, "np": np.float32(batch_idx / 7)},
            "mixed": {"loss": loss if batch_idx % 2 else loss.item(), "half": loss.half()},
            "one": loss,
        }[self.case["metrics"]]

    def validation_metrics(self, model: nn.Module, batch: torch.Tensor) -> Any:
        loss = (model(batch) - batch.sum(1, keepdim=True)).pow(2)
        return {"loss": loss.mean(), "each": loss.mean().item() / 3}

    def whole_metrics(self, model: nn.Module, data_loader: Any) -> Any:
        losses = [self.validation_metrics(model, batch)["loss"] for batch in data_loader]
        return {
            "loss": torch.stack(losses).mean(),
            "list": [loss.item() for loss in losses],
            "drawn": torch.rand(2),
        }


class Wrapped(Base):
    """The dialect of 0.12.13 and later."""

    def __init__(self, context: Any) -> None:
        self.context = context
        if self.case["foreign"]:
            context.experimental.disable_dataset_reproducibility_checks()
        self.spread = context.wrap_reducer(Spread(), name="spread") if self.case["custom"] else None
        self.models = [context.wrap_model(self.net()) for _ in range(self.case["optimizers"])]
        self.optimizers = [context.wrap_optimizer(self.optimizer_of(model)) for model in self.models]
        if self.case["scheduler"]:
            mode = LRScheduler.StepMode[self.case["scheduler"]]
            for optimizer in self.optimizers:
                context.wrap_lr_scheduler(self.scheduled(optimizer), mode, frequency=self.case["frequency"])

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        clip = (lambda p: nn.utils.clip_grad_norm_(p, 0.5)) if self.case["clip"] else None
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            loss = self.loss(model, batch)
            self.context.backward(loss)
            self.context.step_optimizer(optimizer, clip_grads=clip)
        if self.spread is not None:
            self.spread.update(loss.item())
        return self.training_metrics(loss, batch_idx)


class ByBatch(Wrapped):
    def evaluate_batch(self, batch: Any, batch_idx: int) -> Any:
        if self.spread is not None:
            self.spread.update(float(batch[0, 0]))
        return self.validation_metrics(self.models[-1], batch)


class Whole(Wrapped):
    def evaluate_full_dataset(self, data_loader: Any) -> Any:
        return self.whole_metrics(self.models[-1], data_loader)


class Old(Base):
    """The dialect of 0.12, which Determined has not had since 0.14."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def build_model(self) -> nn.Module:
        return self.net()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.optimizer_of(model)

    def create_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        if not self.case["scheduler"]:
            return None
        return LRScheduler(self.scheduled(optimizer), LRScheduler.StepMode[self.case["scheduler"]])

    def train_batch(self, batch: Any, model: nn.Module, epoch_idx: int, batch_idx: int) -> Any:  # type: ignore[override]
        return self.training_metrics(self.loss(model, batch), batch_idx)

    def evaluate_batch(self, batch: Any, model: nn.Module) -> Any:  # type: ignore[override]
        return self.validation_metrics(model, batch)


def trial_class(case: Case, *, old_dialect: bool) -> type[PyTorchTrial]:
    """The trial of a complete description.

    Args:
        case: the description.
        old_dialect: whether the harness knows the dialect of 0.12.
    """
    old = old_dialect and case["old"]
    base = Old if old else Whole if case["full"] else ByBatch
    return type("Trial", (base,), {"case": case})


def case_of(**fields: Any) -> Case:
    return {**DEFAULTS, **fields}


NAMED: dict[str, Case] = {
    "plain": case_of(dropout=0.0),
    "dropout": case_of(),
    "shuffle": case_of(order="shuffle", validate=4),
    "shuffled twice over": case_of(order="shuffle", records=6, batch_size=2, batches=17, validate=5),
    "augmented": case_of(order="shuffle", augment=True, validate=3, checkpoint=4),
    "noise in the main process": case_of(order="shuffle", noise=["torch", "numpy"], validate=4),
    "noise in workers": case_of(order="shuffle", noise=["python", "torch"], workers=2, validate=4),
    "numpy in workers": case_of(noise=["numpy"], workers=2, prefetch=1, validate=6, batches=25),
    "workers with an init function": case_of(noise=["python"], workers=2, worker_init=True),
    "generator": case_of(order="shuffle", generator=True, workers=2, noise=["torch"], batches=20),
    "drop last": case_of(order="shuffle", drop_last=True, batches=14, validate=6),
    "initial validation": case_of(initial=True, validate=5, validation_shuffle=True),
    "validation in workers": case_of(validate=3, validation_workers=2, validation_noise=True),
    "persistent workers": case_of(validate=3, validation_workers=2, validation_noise=True, persistent=True),
    "whole data set": case_of(full=True, validate=4, order="shuffle", initial=True),
    "two optimizers": case_of(optimizers=2, optimizer="adam", order="shuffle", validate=4, clip=True),
    "aggregation": case_of(aggregation=3, scheduler="STEP_EVERY_BATCH", frequency=2, batches=14, validate=5),
    "scheduler by epoch": case_of(scheduler="STEP_EVERY_EPOCH", order="shuffle", batches=25),
    "scheduler by step": case_of(scheduler="STEP_EVERY_OPTIMIZER_STEP", aggregation=2, optimizer="adam"),
    "callbacks that draw": case_of(callbacks=True, order="shuffle", validate=4, checkpoint=3, batches=18),
    "callbacks and workers": case_of(callbacks=True, order="random", workers=2, noise=["numpy"], validate=4),
    "metrics as numbers": case_of(metrics="numbers", report=4, batches=40),
    "metrics as arrays": case_of(metrics="arrays", report=50, batches=60),
    "metrics of both": case_of(metrics="mixed", report=7),
    "one tensor": case_of(metrics="one", report=200, batches=150),
    "sum": case_of(reducer="SUM", validate=5),
    "largest": case_of(reducer="MAX", validate=5, custom=True),
    "smallest": case_of(reducer="MIN", validate=5, custom=True),
    "torch's loader": case_of(foreign="map", order="shuffle", records=60, noise=["numpy"], validate=4),
    "torch's loader and workers": case_of(
        foreign="map", order="shuffle", records=60, workers=2, noise=["torch"], validate=6, full=True
    ),
    "stream": case_of(foreign="stream", records=60, noise=["python"], validate=4),
    "old": case_of(old=True, order="shuffle", validate=4, optimizer="adam"),
    "old with a scheduler": case_of(old=True, augment=True, scheduler="STEP_EVERY_BATCH", aggregation=2),
    **{
        f"order {kind}": case_of(order=kind, validate=4, augment=True, batches=22)
        for kind in ("replacement", "more", "subset", "weighted", *OWN_ORDERS)
    },
    **{
        f"order {kind} and workers": case_of(
            order=kind, validate=4, augment=True, batches=22, workers=2, noise=["numpy"], callbacks=True
        )
        for kind in ("replacement", "weighted", *OWN_ORDERS)
    },
}


def random_case(seed: int) -> Case:
    """A description drawn from all that there can be."""
    draw = random.Random(seed)

    def one_of(*values: Any) -> Any:
        return draw.choice(values)

    kinds = ("sequence", "shuffle", "random", "replacement", "more", "subset", "weighted")
    foreign = one_of(None, None, None, "map", "stream")
    old = not foreign and one_of(False, False, False, True)
    # a loader of torch that ends is never begun again by Determined, which then waits for ever
    kind = draw.choice(kinds[:3] if foreign else kinds + OWN_ORDERS)
    full = not old and one_of(False, False, True)
    return case_of(
        batches=draw.randint(3, 30),
        records=200 if foreign else draw.randint(7, 30),
        batch_size=draw.randint(1, 5),
        aggregation=1 if old else one_of(1, 1, 2, 3),
        validate=draw.randint(0, 8),
        checkpoint=draw.randint(0, 8),
        report=draw.randint(1, 12),
        initial=one_of(False, True),
        dropout=one_of(0.0, 0.3, 0.5),
        noise=draw.sample(["torch", "numpy", "python"], draw.randint(0, 3)),
        augment=one_of(False, True),
        workers=one_of(0, 0, 1, 2),
        order=kind,
        drop_last=one_of(False, True),
        generator=one_of(False, False, True),
        worker_init=one_of(False, True),
        optimizers=1 if old else one_of(1, 2),
        optimizer=one_of("sgd", "adam"),
        scheduler=one_of(None, "STEP_EVERY_EPOCH", "STEP_EVERY_BATCH", "STEP_EVERY_OPTIMIZER_STEP"),
        frequency=1 if old else one_of(1, 2),
        clip=not old and one_of(False, True),
        full=full,
        foreign=foreign,
        validation_workers=one_of(0, 0, 1, 2),
        validation_shuffle=one_of(False, True),
        validation_noise=one_of(False, True),
        persistent=one_of(False, True),
        reducer=None if full else one_of(None, "AVG", "SUM", "MAX", "MIN"),
        custom=not old and not full and one_of(False, True),
        metrics="tensors" if old else one_of("tensors", "numbers", "arrays", "mixed", "one"),
        callbacks=one_of(False, True),
        old=old,
    )
