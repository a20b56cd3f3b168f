"""A metric is a by-product: whatever its value is, the trial trains on and the other metrics are reported."""

from __future__ import annotations

import decimal
import fractions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from determined import core
from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import RUN_DIR_VARIABLE, Length
from determined._run.metric_values import UnusableError, plain
from determined.pytorch import PyTorchTrial
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

ONE = Length("batches", 3)


class Nasty:
    """Fails however it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise NastyError

    def _fail(self, *_: object) -> Any:
        raise NastyError

    __float__ = __int__ = __index__ = __len__ = __repr__ = __str__ = __iter__ = __bool__ = __array__ = _fail
    __add__ = __radd__ = __truediv__ = __format__ = __reduce_ex__ = _fail
    __hash__ = object.__hash__


class NastyError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class FailingArray:
    def __array__(self, *_: object, **__: object) -> Any:
        raise MemoryError


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


ODD = {
    "dict": {"a": 1.0, "b": {"c": torch.tensor(2.0)}},
    "text": "warm-up",
    "bytes": b"abc",
    "set": {1, 2},
    "function": len,
    "generator": (n for n in range(3)),
    "range": range(10**15),
    "ragged": [[1, 2], [3]],
    "object": object(),
    "objects": np.array([object(), None], dtype=object),
    "texts": np.array(["a", "b"]),
    "dates": np.datetime64("2020-01-01"),
    "complex": 1 + 2j,
    "complex tensor": torch.tensor([1 + 2j]),
    "huge": 10**5000,
    "cyclic": cyclic(),
    "nasty": Nasty(),
    "array that fails": FailingArray(),
    "in a list": [1.0, Nasty()],
    "module": torch.nn.Linear(1, 1),
    "meta": torch.empty(3, device="meta"),
    "class": int,
    "sparse": torch.eye(3).to_sparse(),
}
FINE = {
    "int": 3,
    "numpy": np.float16(2),
    "list": [1, 2.0],
    "matrix": [[1, 2], [3, 4]],
    "array": np.arange(6.0).reshape(2, 3),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "fraction": fractions.Fraction(1, 3),
    "decimal": decimal.Decimal("0.5"),
    "nan": float("nan"),
    "infinite": float("-inf"),
    "large": 2**70,
}


def of_class(**methods: Any) -> type[PyTorchTrial]:
    return type("Trial", (TinyTrial,), methods)


def in_training(value: Any) -> type[PyTorchTrial]:
    def train_batch(self: Any, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
        return {**TinyTrial.train_batch(self, batch, epoch_idx, batch_idx), "x": value}

    return of_class(train_batch=train_batch)


def in_validation(value: Any) -> type[PyTorchTrial]:
    def evaluate_batch(self: Any, batch: Any) -> Any:
        return {**TinyTrial.evaluate_batch(self, batch), "x": value}

    return of_class(evaluate_batch=evaluate_batch)


def in_whole(value: Any) -> type[PyTorchTrial]:
    return of_class(
        evaluate_batch=PyTorchTrial.evaluate_batch,
        evaluate_full_dataset=lambda self, data_loader: {"x": value, "validation_loss": 1.0},
    )


def in_reducer(value: Any) -> type[PyTorchTrial]:
    def __init__(self: Any, context: Any) -> None:  # noqa: N807
        TinyTrial.__init__(self, context)
        context.wrap_reducer(lambda _: value, name="x")

    return of_class(__init__=__init__)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("way", [in_training, in_validation, in_whole, in_reducer])
def test_a_value_that_is_no_metric_is_named_once_and_left_out(
    folder: Folder, caplog: Any, way: Any, kind: str
) -> None:
    with caplog.at_level("WARNING", "determined"):
        outcome = folder.drive(way(ODD[kind]), config={"scheduling_unit": 1}, max_length=ONE)
    texts = {"text", "texts", "ragged"} | ({"dict"} if way is in_whole else set())
    written = way in {in_whole, in_reducer} and kind in texts
    reports = [*outcome.training, *outcome.validations]
    assert all("loss" in metrics or "validation_loss" in metrics for _, metrics in reports)
    if not written:
        assert all("x" not in metrics for _, metrics in reports)
        assert sum("metric x of" in line and "left out" in line for line in caplog.messages) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("way", [in_training, in_validation, in_whole, in_reducer])
def test_numbers_of_every_kind_are_reported(folder: Folder, way: Any, kind: str) -> None:
    outcome = folder.drive(way(FINE[kind]), max_length=ONE)
    reports = outcome.training if way is in_training else outcome.validations
    assert "x" in reports[-1][1]


@pytest.mark.parametrize("way", [in_validation, in_whole, in_reducer])
def test_only_the_searchers_metric_ends_a_trial_with_name_and_line(folder: Folder, way: Any) -> None:
    config = {"searcher": {"name": "single", "metric": "x"}}
    with pytest.raises(
        InvalidTrialError, match=r"test_odd_metrics.py:\d+: the searcher metric x|driving.py:\d+"
    ):
        folder.drive(way(object()), config=config, max_length=ONE)


@pytest.mark.parametrize("kind", sorted(set(ODD) - {"dict", "text", "ragged", "generator", "texts"}))
def test_the_core_api_leaves_it_out_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: Any, kind: str
) -> None:
    info = folder.info()
    info.save(Path(info.run_dir))
    monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
    with caplog.at_level("WARNING", "determined"), core.init() as context:
        for steps in (1, 2):
            context.train.report_training_metrics(steps, {"x": ODD[kind], "loss": 1.0})
            context.train.report_validation_metrics(steps, {"loss": torch.tensor(1.0)})
            context.train.report_metrics("own", steps, {"loss": np.float32(2)})
    assert sum("the metric x of training is left out" in line for line in caplog.messages) == 1


def test_a_name_that_fails_leaves_its_metric_out() -> None:
    with pytest.raises(UnusableError, match="fails with NastyError"):
        plain({Nasty(): 1.0})


def test_text_that_cannot_be_encoded_is_spelt_out(tmp_path: Path) -> None:
    text = plain("a\ud800")
    (tmp_path / "file").write_text(str(text), encoding="utf-8")
    assert text == "a\\ud800"
