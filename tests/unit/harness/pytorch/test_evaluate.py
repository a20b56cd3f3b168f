"""One batch is validated before training: mistakes are found there, and nothing else changes."""

from __future__ import annotations

import importlib
import random
import sys
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset

from determined._contract.errors import InvalidHP, InvalidTrialError
from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from determined.pytorch import DataLoader, MetricReducer, PyTorchCallback, PyTorchTrial, _evaluate
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METRIC = {"searcher": {"metric": "validation_loss"}}
COUNTS: Counter[str] = Counter()
DRAWN = 0


def failing(error: Exception) -> Callable[..., Any]:
    def evaluate(_: Any, batch: Any) -> Any:
        raise error

    return evaluate


def untrained(**methods: Any) -> type[TinyTrial]:
    def train_batch(_: Any, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        pytest.fail("it was trained")

    return type("Bad", (TinyTrial,), {"train_batch": train_batch, **methods})


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ({"evaluate_batch": lambda _, batch: 1.0}, "evaluate_batch returned"),
        ({"evaluate_batch": lambda _, batch: {"other": 1.0}}, "searcher.metric is 'validation_loss'"),
        ({"evaluate_batch": lambda _, batch: {"validation_loss": "x"}}, "validation_loss"),
        ({"evaluate_batch": failing(TypeError("bad"))}, "TypeError: bad"),
        ({"evaluate_batch": lambda self, batch: {"validation_loss": self.missing}}, "AttributeError"),
        (
            {"evaluate_full_dataset": lambda _, data_loader: 3, "evaluate_batch": None},
            "evaluate_full_dataset",
        ),
        ({"evaluation_reducer": lambda _: 3}, "evaluation_reducer returned int"),
    ],
)
def test_what_is_wrong_with_validation_is_found_before_training(
    folder: Folder, methods: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidTrialError, match=says):
        folder.drive(untrained(**methods), config=METRIC)


def test_the_place_of_what_fails_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    context = folder.path / "context"
    lines = ["from tests.unit.harness.pytorch.driving import TinyTrial", "class Mine(TinyTrial):"]
    lines += ["    def evaluate_batch(self, batch):", "        return batch.missing"]
    (context / "placed_def.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(context))
    mine = importlib.import_module("placed_def").Mine
    with pytest.raises(InvalidTrialError, match=r"placed_def\.py:4 in evaluate_batch: AttributeError"):
        folder.drive(mine, config=METRIC)


def test_the_field_turns_it_off(folder: Folder) -> None:
    with pytest.raises(pytest.fail.Exception, match="it was trained"):
        folder.drive(
            untrained(evaluate_batch=failing(TypeError("bad"))), config={"preflight_validation": False}
        )


class OfTraining(TinyTrial):
    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        self.seen = batch_idx
        return super().train_batch(batch, epoch_idx, batch_idx)

    def evaluate_batch(self, batch: Any) -> Any:
        return {"validation_loss": float(self.seen)}


class OfTheMetric(TinyTrial):
    trained = False

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        self.trained = True
        return super().train_batch(batch, epoch_idx, batch_idx)

    def evaluate_batch(self, batch: Any) -> Any:
        if not self.trained:
            raise InvalidHP("it diverged")
        return super().evaluate_batch(batch)


class OfAllData(TinyTrial):
    evaluate_batch = PyTorchTrial.evaluate_batch

    def evaluate_full_dataset(self, data_loader: Any) -> Any:
        if len(data_loader) < 2:
            raise ValueError("only one class")
        return {"validation_loss": 1.0}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([torch.ones(2, 2)])


class OfAStream(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        context.experimental.disable_dataset_reproducibility_checks()

    def build_validation_data_loader(self) -> Any:
        return TorchDataLoader(Stream(), batch_size=None)


class OfAnIterator(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.names = iter(range(2))

    def evaluate_batch(self, batch: Any) -> Any:
        return {**super().evaluate_batch(batch), "name": next(self.names)}


class Lazy(TinyTrial):
    def __init__(self, context: Any) -> None:
        self.context = context
        self.model = context.wrap_model(nn.LazyLinear(1))
        self.model(torch.zeros(1, 2))
        self.other = nn.LazyLinear(1)
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))


@pytest.mark.parametrize("trial", [OfTraining, OfTheMetric, OfAllData, OfAStream, OfAnIterator, Lazy])
def test_a_trial_is_trained_when_one_batch_tells_nothing(folder: Folder, trial: type[TinyTrial]) -> None:
    outcome = folder.drive(trial, config=METRIC, max_length=Length("batches", 2))
    assert outcome.reason is ExitReason.COMPLETED
    assert outcome.validations


def test_nothing_is_printed_twice(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    class Loud(TinyTrial):
        def evaluate_batch(self, batch: Any) -> Any:
            sys.stdout.write(f"validating {float(batch[0, 0])}\n")
            return super().evaluate_batch(batch)

    folder.drive(Loud, config=METRIC, max_length=Length("batches", 1))
    assert capfd.readouterr().out.splitlines() == ["validating 0.0", "validating 2.0"]


def test_workers_end_with_it(folder: Folder) -> None:
    import multiprocessing

    alive: list[int] = []

    class Working(TinyTrial):
        def build_validation_data_loader(self) -> Any:
            return DataLoader(Records(4), batch_size=2, num_workers=2)

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            alive.append(len(multiprocessing.active_children()))
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder.drive(Working, config=METRIC, max_length=Length("batches", 1))
    assert alive == [0]


class Total(MetricReducer):
    def __init__(self) -> None:
        self.resets = 0
        self.total = 0.0

    def reset(self) -> None:
        self.resets += 1
        self.total = 0.0

    def per_slot_reduce(self) -> Any:
        return self.total, self.resets

    def cross_slot_reduce(self, per_slot_metrics: list[Any]) -> Any:
        return per_slot_metrics[0][0]


class Watching(PyTorchCallback):
    def __init__(self) -> None:
        self.ended = 0

    def on_validation_end(self, metrics: Any) -> None:
        self.ended += 1
        metrics["ended"] = self.ended


class Noted(Records):
    reads = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        self.reads += 1
        return super().__getitem__(index) + self.reads / 100


class Own:
    __slots__ = ("count", "history")

    def __init__(self) -> None:
        self.count, self.history = 0, deque([0.0], maxlen=3)


def stateful(kinds: frozenset[str]) -> type[TinyTrial]:  # noqa: C901  (one class)
    """A trial whose numbers depend on how often validation has run, in the ways that `kinds` names."""

    class Stateful(TinyTrial):
        calls: ClassVar[int] = 0

        def __init__(self, context: Any) -> None:
            self.context = context
            layers = [nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)]
            self.model = context.wrap_model(nn.Sequential(*layers))
            self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.parameters(), lr=0.01))
            self.count, self.seen = 0, OrderedDict[int, float]()
            self.array, self.own = np.zeros(2), Own()
            self.generator = torch.Generator().manual_seed(3)
            self.numpy, self.python = np.random.default_rng(3), random.Random(3)
            self.total = context.wrap_reducer(Total(), name="total")
            self.data = Noted(10)
            self.ema = [one.detach().clone() for one in self.model.parameters()]

        def build_callbacks(self) -> Any:
            return {"watching": Watching()}

        def build_training_data_loader(self) -> Any:
            return DataLoader(self.data, batch_size=2, shuffle=True)

        def build_validation_data_loader(self) -> Any:
            return DataLoader(self.data, batch_size=2, shuffle="shuffled" in kinds)

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            self.total.total += float(batch.sum())
            return {**super().train_batch(batch, epoch_idx, batch_idx), "state": self.number()}

        def number(self) -> float:
            own = self.count + len(self.seen) + self.array.sum() + self.own.count + sum(self.own.history)
            return float(own + type(self).calls + COUNTS["calls"] + DRAWN + self.total.resets)

        def evaluate_batch(self, batch: Any) -> Any:
            for kind in sorted(kinds):
                getattr(self, f"do_{kind}", lambda _: None)(batch)
            self.total.total += 1.0
            loss = self.model(batch).pow(2).mean()
            return {"validation_loss": loss, "state": self.number()}

        def do_attributes(self, batch: Any) -> None:
            self.count += 1
            self.seen[self.count] = float(batch[0, 0])
            self.seen.move_to_end(self.count, last=False)
            self.array += 1
            self.own.count += 1
            self.own.history.append(float(self.count))
            self.made = self.count

        def do_globals(self, batch: Any) -> None:
            global DRAWN  # noqa: PLW0603
            DRAWN += 1
            type(self).calls += 1
            COUNTS["calls"] += 1

        def do_draws(self, batch: Any) -> None:
            for draw in (random.random, np.random.rand, lambda: float(torch.rand(()))):
                self.count += draw()
            self.count += float(torch.rand((), generator=self.generator))
            self.count += self.numpy.random() + self.python.random()

        def do_mode(self, batch: Any) -> None:
            self.model.train()  # updates the running means, and draws for dropout

        def do_weights(self, batch: Any) -> None:
            for one, mean in zip(self.model.parameters(), self.ema, strict=True):
                mean.mul_(0.9).add_(one, alpha=0.1)
                one.data, mean.data = mean.data, one.data

        def do_step(self, batch: Any) -> None:
            with torch.enable_grad():
                self.model(batch).sum().backward()
            self.optimizer.step()
            self.optimizer.param_groups[0]["lr"] *= 0.9

        def do_stop(self, batch: Any) -> None:
            if self.context.current_train_batch() == 0 and self.model[0].weight.grad is None:
                self.context.set_stop_requested(True)

    return Stateful


KINDS = ["attributes", "globals", "draws", "mode", "weights", "step", "stop", "shuffled"]


def numbers(path: Path, trial: type[TinyTrial], *, on: bool) -> Any:
    global DRAWN  # noqa: PLW0603
    COUNTS.clear()
    DRAWN = 0
    path.mkdir()
    folder = Folder(path)
    config = {
        **METRIC,
        "preflight_validation": on,
        "min_validation_period": {"batches": 3},
        "scheduling_unit": 2,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_evaluate, "log_skipped", lambda why: pytest.fail(f"it was skipped: {why}"))
        outcome = folder.drive(trial, config=config, max_length=Length("batches", 7))
    state = torch.load(folder.checkpoints / outcome.newest / "state_dict.pth", weights_only=False)
    weights = [value.tolist() for model in state["models_state_dict"] for value in model.values()]
    return outcome.training, outcome.validations, outcome.checkpoints, weights, str(state["rng_state"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.frozensets(st.sampled_from(KINDS), min_size=1))
def test_every_number_is_equal_with_the_field_on_and_off(
    tmp_path_factory: pytest.TempPathFactory, kinds: frozenset[str]
) -> None:
    path = tmp_path_factory.mktemp("numbers")
    off = numbers(path / "off", stateful(kinds), on=False)
    assert numbers(path / "on", stateful(kinds), on=True) == off


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_to_change_numbers_is_put_back(tmp_path: Path, kind: str) -> None:
    off = numbers(tmp_path / "off", stateful(frozenset({kind})), on=False)
    assert numbers(tmp_path / "on", stateful(frozenset({kind})), on=True) == off
