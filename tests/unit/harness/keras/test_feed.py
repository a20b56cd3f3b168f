from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from determined._contract.errors import InvalidHP
from determined._contract.run_info import Length
from determined.keras import (
    SequenceAdapter,
)
from determined.keras._feed import ArrayFeed, _split, plain, preserved
from tests.unit.harness.keras.driving import Fixed, Folder, building, fitted, keras, records


def test_class_weights_are_those_of_fit(folder: Folder) -> None:
    class Weighted(Fixed):
        def build_model(self) -> Any:
            model = super().build_model()
            self.context.configure_fit(class_weight={0: 1.0, 1: 3.0})
            return model

    outcome = folder.drive(Weighted, max_length=Length("epochs", 1))
    expected = fitted(1, class_weight={0: 1.0, 1: 3.0})
    assert outcome.training[0][1]["loss"] == pytest.approx(expected.history["loss"][0])


def test_an_error_in_a_sequence_comes_out_as_it_was_raised(folder: Folder) -> None:
    class Bad(keras.utils.Sequence):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise InvalidHP("too many")
            return records(2)

    with pytest.raises(InvalidHP, match="too many"):
        folder.drive(building("build_training_data_loader", lambda _: Bad()))


def test_a_sequence_adapter_of_old_is_the_sequence_it_holds(folder: Folder) -> None:
    class Pairs(keras.utils.Sequence):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            return tuple(part[2 * index : 2 * index + 2] for part in records())

    class Adapted(Fixed):
        def build_training_data_loader(self) -> Any:
            return SequenceAdapter(Pairs(), workers=2, max_queue_size=3)

        def build_validation_data_loader(self) -> Any:
            return SequenceAdapter(Pairs())

    outcome = folder.drive(Adapted, config={"scheduling_unit": 5})
    assert [metrics["loss"] for _, metrics in outcome.training] == pytest.approx(fitted(2).history["loss"])
    assert outcome.validations[-1][1]["val_loss"] > 0


@pytest.mark.parametrize(
    ("records", "replicas", "sizes"),
    [(0, 2, ()), (1, 2, ()), (2, 2, (1, 1)), (5, 3, (2, 2, 1)), (3, 1, (3,))],
)
def test_the_last_batch_is_split_evenly(records: int, replicas: int, sizes: tuple[int, ...]) -> None:
    assert _split(records, replicas) == sizes


def test_arrays_begin_at_any_step_with_the_batches_that_would_have_come() -> None:
    def batches(begin: int, count: int) -> list[Any]:
        feed = ArrayFeed(records(9), 2, seed=3, strategy=tf.distribute.get_strategy())
        feed.begin(begin, None)
        return [next(feed.reader(0)[0])[0].numpy().tolist() for _ in range(count)]

    whole = batches(0, 12)
    assert batches(7, 5) == whole[7:]
    assert sorted(x for batch in whole[:5] for x, _ in batch) == list(range(9))
    assert whole[:5] != whole[5:10]


def test_data_becomes_what_keras_makes_of_it() -> None:
    frame = type("Frame", (), {"to_numpy": lambda _: np.ones(2)})()
    made = plain([{"a": frame}, np.zeros(1, "float64"), np.zeros(1, "int8"), "text"])
    assert isinstance(made, tuple)
    assert [made[0]["a"].dtype, made[1].dtype, made[2].dtype, made[3]] == [
        "float32",
        "float32",
        "int8",
        "text",
    ]


def test_random_states_are_preserved_and_may_be_seeded_inside() -> None:
    state = random.getstate()
    with preserved(5):
        one = random.random(), np.random.rand()  # noqa: NPY002
    with preserved(5):
        assert (random.random(), np.random.rand()) == one  # noqa: NPY002
    assert random.getstate() == state
