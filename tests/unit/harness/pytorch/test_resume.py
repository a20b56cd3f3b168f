"""A run that is interrupted and resumed reads, computes and ends as one that is not, to the bit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, SubsetRandomSampler, WeightedRandomSampler

from determined._contract.records import ExitReason, Restored
from determined._contract.run_info import Length
from determined.pytorch import DataLoader, LRScheduler, PyTorchCallback, PyTorchTrial
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial

LENGTH = 13  # two epochs and a half


@dataclass
class Log:
    """What a trial read and computed, over all its runs."""

    batches: list[list[float]]
    losses: list[float]
    weights: dict[str, torch.Tensor] | None = None
    leave_after: int | None = None


class Logged(TinyTrial):
    log: Log
    folder: Folder
    options: dict[str, Any]

    def __init__(self, context: Any) -> None:
        self.context = context
        options = self.options
        self.reducer = context.wrap_reducer(list, name="seen") if options.get("reducer") else None
        if options.get("amp"):
            context.experimental.use_amp()
        layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(options.get("dropout", 0.0)), nn.Linear(4, 1))
        self.model = context.wrap_model(layers)
        adam = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.optimizer = context.wrap_optimizer(adam)
        if options.get("scheduler"):
            mode = options["scheduler"]
            scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.5)
            context.wrap_lr_scheduler(scheduler, mode)
        if options.get("foreign"):
            context.experimental.disable_dataset_reproducibility_checks()

    def build_training_data_loader(self) -> Any:
        return self.options.get("loader", own_loader)(self.options)

    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        loss = self.model(batch).pow(2).mean() * (1 + random.random() + float(np.random.rand()))  # noqa: NPY002
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        if self.reducer is not None:
            self.reducer.update(loss.item())
        self.log.batches.append(batch.flatten().tolist())
        self.log.losses.append(loss.item())
        self.log.weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.log.leave_after == batch_idx + 1:
            self.folder.run.ask_to_stop()
        return {"loss": loss}


def own_loader(options: dict[str, Any]) -> Any:
    return DataLoader(
        Records(noise=options.get("noise", False)),
        batch_size=2,
        shuffle=options.get("shuffle", False),
        num_workers=options.get("workers", 0),
        multiprocessing_context="fork" if options.get("workers") else None,
    )


def trained(folder: Folder, cuts: tuple[int, ...], options: dict[str, Any]) -> Log:
    """Train `LENGTH` batches, asked to leave after each of `cuts`."""
    log, checkpoints = Log([], []), ()
    kind = options.get("trial", Logged)
    trial = type("Trial", (kind,), {"log": log, "folder": folder, "options": options})
    config = {
        "optimizations": {"aggregation_frequency": options.get("frequency", 1)},
        "min_validation_period": {"batches": 4},
    }
    for cut in (*cuts, None):
        log.leave_after = cut
        length = Length("batches", LENGTH)
        outcome = folder.drive(trial, config=config, max_length=length, checkpoints=checkpoints)
        assert outcome.reason is (ExitReason.PREEMPTED if cut else ExitReason.COMPLETED)
        assert [restored.steps_completed for restored in outcome.of(Restored)] == list(
            cuts[cuts.index(cut) - 1 : cuts.index(cut)]
            if cut and checkpoints
            else cuts[-1:]
            if checkpoints
            else []
        )
        checkpoints = (outcome.newest,)
    return log


def assert_equal(one: Log, other: Log) -> None:
    assert one.batches == other.batches
    assert one.losses == other.losses
    assert one.weights is not None
    assert other.weights is not None
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def check(tmp_path: Any, options: dict[str, Any], cuts: tuple[tuple[int, ...], ...] = ((5,), (3, 7))) -> None:
    torch.manual_seed(0)
    folders = []
    for name in range(1 + len(cuts)):
        (tmp_path / str(name)).mkdir()
        folders.append(Folder(tmp_path / str(name)))
    whole = trained(folders[0], (), options)
    for folder, cut in zip(folders[1:], cuts, strict=True):
        assert_equal(trained(folder, cut, options), whole)


MODES = (None, LRScheduler.StepMode.STEP_EVERY_BATCH, LRScheduler.StepMode.STEP_EVERY_EPOCH)


@pytest.mark.parametrize(
    ("shuffle", "dropout", "noise", "frequency", "scheduler"),
    list(product((False, True), (0.0, 0.5), (False, True), (1, 3), MODES)),
)
def test_without_workers(  # noqa: PLR0917  (one parameter a dimension of the grid)
    tmp_path: Any, shuffle: bool, dropout: float, noise: bool, frequency: int, scheduler: Any
) -> None:
    options = {
        "shuffle": shuffle,
        "dropout": dropout,
        "noise": noise,
        "frequency": frequency,
        "scheduler": scheduler,
    }
    check(tmp_path, options)


@pytest.mark.parametrize(
    ("shuffle", "dropout", "noise"), [(True, 0.5, True), (False, 0.0, True), (True, 0.0, False)]
)
def test_with_two_workers(tmp_path: Any, shuffle: bool, dropout: float, noise: bool) -> None:
    check(tmp_path, {"shuffle": shuffle, "dropout": dropout, "noise": noise, "workers": 2}, cuts=((3,), (7,)))


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("reducer", [False, True])
@pytest.mark.parametrize("frequency", [1, 2])
def test_with_mixed_precision_and_reducers(tmp_path: Any, amp: bool, reducer: bool, frequency: int) -> None:
    mode = LRScheduler.StepMode.STEP_EVERY_OPTIMIZER_STEP
    options = {"shuffle": True, "dropout": 0.5, "scheduler": mode, "frequency": frequency}
    check(tmp_path, {**options, "amp": amp, "reducer": reducer})


def weighted(_: dict[str, Any]) -> Any:
    return DataLoader(Records(noise=True), batch_size=2, sampler=WeightedRandomSampler([1.0] * 10, 10))


def seeded_subset(_: dict[str, Any]) -> Any:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(Records(), batch_size=3, sampler=SubsetRandomSampler(range(8), generator=generator))


class ShuffledBatches:
    """A batch sampler in plain Python that draws while it is read."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        for _ in range(5):
            yield random.sample(range(10), 2)


def foreign_batches(_: dict[str, Any]) -> Any:
    return DataLoader(Records(), batch_sampler=ShuffledBatches())


@pytest.mark.parametrize("loader", [weighted, seeded_subset, foreign_batches])
def test_with_samplers_of_the_user(tmp_path: Any, loader: Any) -> None:
    check(tmp_path, {"loader": loader, "dropout": 0.5})


def torch_loader(options: dict[str, Any]) -> Any:
    return TorchDataLoader(
        Records(noise=True), batch_size=2, shuffle=True, num_workers=options.get("workers", 0)
    )


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.rand(9, 2))


def stream_loader(_: dict[str, Any]) -> Any:
    return TorchDataLoader(Stream(), batch_size=2)


@pytest.mark.parametrize("loader", [torch_loader, stream_loader])
def test_with_loaders_of_torch(tmp_path: Any, loader: Any) -> None:
    check(tmp_path, {"loader": loader, "dropout": 0.5, "foreign": True})


def test_with_a_loader_of_torch_and_workers(tmp_path: Any) -> None:
    check(tmp_path, {"loader": torch_loader, "foreign": True, "workers": 2}, cuts=((3,),))


def test_after_kill_from_the_last_checkpoint(tmp_path: Any) -> None:
    """What was trained after the checkpoint is trained again, and comes out the same."""
    options = {"shuffle": True, "dropout": 0.5}
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = trained(Folder(tmp_path / "whole"), (), options)
    folder = Folder(tmp_path / "cut")
    log = Log([], [])
    trial: type[PyTorchTrial] = type("Trial", (Logged,), {"log": log, "folder": folder, "options": options})
    config = {"min_checkpoint_period": {"batches": 4}, "min_validation_period": {"batches": 4}}

    class Killed(BaseException):
        pass

    class Killer(trial):  # type: ignore[valid-type, misc]
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            if batch_idx == 10:
                raise Killed
            return super().train_batch(batch, epoch_idx, batch_idx)

    with pytest.raises(Killed):
        folder.drive(Killer, config=config, max_length=Length("batches", LENGTH))
    del log.batches[8:], log.losses[8:]
    newest = max(folder.checkpoints.iterdir(), key=lambda path: path.stat().st_mtime).name
    folder.drive(trial, config=config, max_length=Length("batches", LENGTH), checkpoints=(newest,))
    assert_equal(log, whole)


def test_callbacks_get_their_state_back(folder: Folder) -> None:
    class Counter(PyTorchCallback):
        def __init__(self) -> None:
            self.seen = np.zeros(2, dtype="int64")

        def on_training_epoch_start(self, epoch_idx: int) -> None:
            self.seen = self.seen + 1

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.seen = state_dict["seen"]

    counters = []

    class Trial(TinyTrial):
        def build_callbacks(self) -> dict[str, PyTorchCallback]:
            counters.append(Counter())
            return {"counter": counters[-1]}

    first = folder.drive(Trial, max_length=Length("epochs", 2))
    folder.drive(Trial, max_length=Length("epochs", 3), checkpoints=(first.newest,))
    assert isinstance(counters[1].seen, np.ndarray)
    assert counters[1].seen.tolist() == [3, 3]


def test_warm_start_takes_the_weights_and_counts_from_zero(folder: Folder) -> None:
    first = folder.drive(TinyTrial, max_length=Length("batches", 3))
    weights = folder.state(first.newest)["models_state_dict"][0]
    seen: list[Any] = []

    class Second(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            seen.append((batch_idx, {name: value.clone() for name, value in self.model.state_dict().items()}))
            return super().train_batch(batch, epoch_idx, batch_idx)

    outcome = folder.drive(
        Second, max_length=Length("batches", 2), checkpoints=(first.newest,), warm_start=True, trial_seed=99
    )
    assert [index for index, _ in seen] == [0, 1]
    assert all(torch.equal(value, weights[name]) for name, value in seen[0][1].items())
    assert outcome.checkpoints == [2]


def test_a_trial_that_skips_by_itself_is_not_skipped_for(folder: Folder) -> None:
    seen: list[float] = []

    class Skipping(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.experimental.disable_dataset_reproducibility_checks()

        def build_training_data_loader(self) -> Any:
            start = self.context.get_initial_batch()
            records = torch.arange(20.0).repeat(2, 1).T
            return TorchDataLoader(records[start:], batch_size=1)  # type: ignore[arg-type]

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            seen.append(batch[0, 0].item())
            return super().train_batch(batch, epoch_idx, batch_idx)

    first = folder.drive(Skipping, max_length=Length("batches", 3))
    folder.drive(Skipping, max_length=Length("batches", 5), checkpoints=(first.newest,))
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0]
