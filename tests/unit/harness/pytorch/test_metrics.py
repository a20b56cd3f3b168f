from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from determined._run.metric_values import LeftOut, UnusableError, plain
from determined.pytorch import DataLoader, MetricReducer, PyTorchCallback, Reducer
from determined.pytorch._metrics import (
    ClosedWindow,
    Mean,
    Window,
    fetch,
    mean_over_processes,
    reduce_over_processes,
    reduce_validation,
    training_means,
)
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial


def reduced(window: Window) -> dict[str, object]:
    """What is reported of a window: values by name, without those that there are none of."""
    window.close(1)
    return closed(window.take()[-1])


def closed(window: ClosedWindow) -> dict[str, object]:
    found = training_means(window, LeftOut("train_batch"))
    return {name: mean.value for name, mean in found.items() if mean.batches}


def means(*batches: dict[str, Any]) -> dict[str, object]:
    window = Window("train_batch", read_numbers=True)
    for batch in batches:
        window.add(batch)
    return reduced(window)


def validated(columns: dict[str, list[Any]], reducer: Reducer) -> dict[str, object]:
    reducers = dict.fromkeys(columns, reducer)
    found = reduce_validation(columns, {}, reducers, LeftOut("evaluate_batch"))
    return {name: mean.value for name, mean in found.items() if mean.batches}


def test_a_training_metric_is_the_unweighted_mean_over_batches() -> None:
    assert means({"loss": torch.tensor(1.0), "n": 2}, {"loss": torch.tensor(4.0), "n": np.float32(3)}) == {
        "loss": 2.5,
        "n": 2.5,
    }


def test_a_tensor_of_several_numbers_counts_as_their_mean() -> None:
    assert means({"loss": torch.tensor([1.0, 2.0, 6.0])}, {"loss": torch.tensor([5.0])}) == {"loss": 4.0}


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor])
def test_none_leaves_its_batch_out_of_the_mean(kind: Any) -> None:
    found = means(
        {"g": None, "never": None}, {"g": kind(2.0), "never": None}, {"g": kind(4.0), "never": None}
    )
    assert found == {"g": 3.0}
    assert validated({"g": [None, kind(2.0), kind(4.0)], "never": [None]}, Reducer.AVG) == {"g": 3.0}
    assert validated({"g": [None, kind(2.0), kind(4.0)]}, Reducer.MAX) == {"g": 4.0}


def test_nan_is_reported_as_it_is() -> None:
    assert math.isnan(means({"loss": torch.tensor(math.nan)}, {"loss": torch.tensor(1.0)})["loss"])  # type: ignore[arg-type]


def test_a_tensor_that_the_trial_changes_in_place_keeps_the_value_it_had() -> None:
    window, running = Window("train_batch", read_numbers=True), torch.zeros(())
    for _ in range(3):
        running += 1
        window.add({"running": running})
    assert reduced(window) == {"running": 2.0}


def test_no_graph_is_kept_alive() -> None:
    window = Window("train_batch", read_numbers=False)
    window.add({"loss": torch.ones((), requires_grad=True) * 2})
    assert [value.requires_grad for value in window.columns["loss"]] == [False]


def test_a_mean_is_the_same_to_the_bit_whether_tensors_are_kept_or_not() -> None:
    values = [torch.tensor(1 / (3 + n)) for n in range(100)]
    taken, kept = Window("train_batch", read_numbers=True), Window("train_batch", read_numbers=False)
    for value in values:
        taken.add({"loss": value})
        kept.add({"loss": value})
    assert taken.columns["loss"] == [value.item() for value in values]
    assert reduced(taken) == reduced(kept)


def test_numbers_of_many_windows_are_fetched_together_and_other_values_left_alone() -> None:
    window = Window("train_batch", read_numbers=False)
    for end in (1, 2):
        loss, count = torch.tensor(end / 3), torch.tensor(2**40 + end)
        window.add({"loss": loss, "count": count, "each": torch.ones(2), "name": "x"})
        window.close(end)
    windows = window.take()
    fetch(windows)
    for one in windows:
        assert one.columns["loss"] == [torch.tensor(one.end / 3).item()]
        assert one.columns["count"] == [2.0**40 + one.end]
        assert one.columns["name"] == ["x"]
        assert torch.equal(one.columns["each"][0], torch.ones(2))


def test_metrics_of_every_form_may_come_together() -> None:
    found = means(
        {"loss": torch.tensor(1.0), "each": torch.tensor([1.0, 3.0]), "n": 1},
        {"loss": torch.tensor(3.0), "each": torch.tensor([5.0, 7.0]), "n": 2},
    )
    assert found == {"loss": 2.0, "each": 4.0, "n": 1.5}


def test_a_window_may_have_other_metrics_than_the_one_before() -> None:
    window = Window("train_batch", read_numbers=True)
    window.add({"a": 1})
    window.close(1)
    window.add({"b": 2, "c": 3})
    window.close(2)
    assert [(one.end, one.batches, one.columns) for one in window.take()] == [
        (1, 1, {"a": [1]}),
        (2, 1, {"b": [2], "c": [3]}),
    ]
    assert window.take() == []


@pytest.mark.parametrize(
    ("first", "second"), [({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 2}), ({"a": 1}, {})]
)
def test_metrics_that_change_from_batch_to_batch_are_refused(first: Any, second: Any) -> None:
    window = Window("train_batch", read_numbers=True)
    window.add(first)
    with pytest.raises(InvalidTrialError, match="train_batch returned the metrics"):
        window.add(second)


def test_one_tensor_is_the_loss() -> None:
    window = Window("train_batch", read_numbers=True)
    window.add(torch.tensor(3.0))
    assert reduced(window) == {"loss": 3.0}


@pytest.mark.parametrize(
    ("reducer", "value"), [(Reducer.AVG, 2.5), (Reducer.SUM, 7.0), (Reducer.MAX, 4.0), (Reducer.MIN, 1.0)]
)
def test_validation_metrics_are_reduced_over_batches(reducer: Reducer, value: float) -> None:
    columns = {
        "m": [torch.tensor([1.0, 2.0]), torch.tensor(4.0)] if reducer is not Reducer.AVG else [1.0, 4.0]
    }
    assert validated(columns, reducer) == {"m": value}


def test_what_reducers_return_becomes_plain() -> None:
    assert plain({"a": np.float32(1), "b": [torch.tensor([1, 2])], "c": "x"}) == {
        "a": 1.0,
        "b": [[1, 2]],
        "c": "x",
    }
    with pytest.raises(UnusableError, match="it is of type object"):
        plain(object())


def test_a_short_last_batch_counts_like_a_full_one_and_batches_and_epochs_are_added(folder: Folder) -> None:
    class Trial(TinyTrial):
        def build_validation_data_loader(self) -> Any:
            return DataLoader(Records(3), batch_size=2)

        def evaluate_batch(self, batch: torch.Tensor, batch_idx: int) -> Any:  # type: ignore[override]
            return {"first": batch[0, 0], "index": batch_idx, "epochs": 5}

    outcome = folder.drive(Trial, max_length=Length("batches", 6))
    assert outcome.validations == [(6, {"batches": 6, "epochs": 5.0, "first": 1.0, "index": 0.5})]
    assert [(steps, set(metrics)) for steps, metrics in outcome.training] == [
        (6, {"batches", "epochs", "loss"})
    ]


def test_the_reported_loss_is_the_mean_since_the_last_report(folder: Folder) -> None:
    class Trial(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            super().train_batch(batch, epoch_idx, batch_idx)
            return {"index": float(batch_idx)}

    outcome = folder.drive(Trial, config={"scheduling_unit": 4}, max_length=Length("batches", 10))
    assert [metrics["index"] for _, metrics in outcome.training] == [1.5, 5.5, 8.5]


@pytest.mark.parametrize("declared", [{"other": Reducer.SUM}, "mean", {"validation_loss": "sum"}])
def test_reducers_that_do_not_fit_the_metrics_are_refused(folder: Folder, declared: Any) -> None:
    class Trial(TinyTrial):
        def evaluation_reducer(self) -> Any:
            return declared

    with pytest.raises(InvalidTrialError, match="evaluation_reducer"):
        folder.drive(Trial)


def test_a_full_dataset_is_evaluated_at_once_in_eval_mode_without_gradients(folder: Folder) -> None:
    seen = []

    class Trial(TinyTrial):
        evaluate_batch = TinyTrial.__mro__[1].evaluate_batch  # type: ignore[attr-defined]

        def evaluate_full_dataset(self, data_loader: Any) -> Any:
            seen.append((self.model.training, torch.is_grad_enabled(), len(data_loader)))
            return {"all": torch.tensor(3.0), "shape": [1, 2]}

    outcome = folder.drive(Trial, max_length=Length("batches", 1))
    assert seen == [(False, False, 2)]
    assert outcome.validations == [(1, {"batches": 1, "epochs": 0, "all": 3.0, "shape": [1, 2]})]


class Largest(MetricReducer):
    def __init__(self) -> None:
        self.resets = 0
        self.reset()

    def reset(self) -> None:
        self.resets += 1
        self.largest = 0.0

    def update(self, value: float) -> None:
        self.largest = max(self.largest, value)

    def per_slot_reduce(self) -> float:
        return self.largest

    def cross_slot_reduce(self, per_slot_metrics: list[Any]) -> Any:
        return max(per_slot_metrics)


def test_reducers_see_every_value_of_their_window(folder: Folder) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            self.largest = context.wrap_reducer(Largest(), name="largest")
            self.indices = context.wrap_reducer(list, name="indices", for_validation=False)
            self.pair = context.wrap_reducer(lambda values: {"low": min(values)}, for_training=False)

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            self.largest.update(float(batch_idx))
            self.indices.update(batch_idx)
            return super().train_batch(batch, epoch_idx, batch_idx)

        def evaluate_batch(self, batch: Any) -> Any:
            self.largest.update(0.5)
            self.pair.update(float(batch[0, 0]))
            return {}

    outcome = folder.drive(Trial, config={"scheduling_unit": 3}, max_length=Length("batches", 5))
    assert [(m["largest"], m["indices"]) for _, m in outcome.training] == [(2.0, [0, 1, 2]), (4.0, [3, 4])]
    assert outcome.validations == [(5, {"batches": 5, "epochs": 1, "largest": 0.5, "low": 0.0})]


@pytest.mark.parametrize(
    ("name", "result", "why"),
    [
        ("score", {"a": 1}, "it returns a dict but was wrapped as"),
        (None, 1.0, "it returns a float but was wrapped without a name"),
    ],
)
def test_a_reducer_with_a_name_gives_one_value_and_without_one_a_dict(
    folder: Folder, caplog: Any, name: str | None, result: Any, why: str
) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.wrap_reducer(lambda _: result, name=name)

    with caplog.at_level("WARNING", "determined"):
        outcome = folder.drive(Trial, max_length=Length("batches", 1))
    assert sum(why in line for line in caplog.messages) == 1
    assert outcome.training[0][1].keys() == {"batches", "epochs", "loss"}


def test_a_reducer_is_wrapped_once(folder: Folder) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            reducer = Largest()
            context.wrap_reducer(reducer, name="one")
            context.wrap_reducer(reducer, name="two")

    with pytest.raises(InvalidTrialError, match="the reducer two is wrapped twice"):
        folder.drive(Trial)


def test_callbacks_see_every_batch_as_numbers(folder: Folder) -> None:
    seen: list[Any] = []

    class Watch(PyTorchCallback):
        def on_training_workload_end(self, avg_metrics: Any, batch_metrics: Any) -> None:
            seen.append((avg_metrics["index"], [batch["index"].item() for batch in batch_metrics]))

        def on_validation_epoch_end(self, outputs: Any) -> None:
            seen.append([float(output["validation_loss"]) >= 0 for output in outputs])

    class Trial(TinyTrial):
        def build_callbacks(self) -> Any:
            return {"watch": Watch()}

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            return {"index": torch.tensor(batch_idx)}

    folder.drive(Trial, max_length=Length("batches", 3))
    assert seen == [(1.0, [0, 1, 2]), [True, True]]


class Others:
    """A group in which this process is rank 0 and what the others send is known."""

    rank = 0

    def __init__(self, *others: Any) -> None:
        self.size, self.others = 1 + len(others), others

    def allgather(self, value: Any) -> list[Any]:
        return [value, *self.others]


def test_with_several_processes_none_leaves_its_batches_out_too() -> None:
    own = {"g": Mean(3.0, 1), "never": Mean(None, 0), "loss": Mean(1.0, 2)}
    others = Others({"g": Mean(6.0, 2), "never": Mean(None, 0), "loss": Mean(2.0, 2)})
    assert mean_over_processes(own, others) == {"g": 5.0, "loss": 1.5}  # type: ignore[arg-type]
    reducers = {"g": Reducer.AVG, "never": Reducer.MAX, "loss": Reducer.SUM}
    told = Others((others.others[0], 2, reducers))
    assert reduce_over_processes(own, 2, reducers, told) == {"g": 5.0, "loss": 3.0}  # type: ignore[arg-type]
