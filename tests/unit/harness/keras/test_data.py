"""A dataset with an end costs the steps that it has: every number is the one that `model.fit` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length
from tests.unit.harness.keras.driving import Folder, Tiny, building, forever, keras, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS = 3


class Count(keras.metrics.Metric):
    """Assigns without looking at the batch."""

    def __init__(self) -> None:
        super().__init__(name="steps")
        self.n = self.add_weight(name="n", initializer="zeros")

    def update_state(self, y: Any, p: Any, sample_weight: Any = None) -> None:
        self.n.assign_add(1.0)

    def result(self) -> Any:
        return self.n + 0.0

    def reset_state(self) -> None:
        self.n.assign(0.0)


class Counting(keras.Model):
    """Counts its own steps, and makes every third of them another one."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")
        self.own = tf.Variable(0, dtype=tf.int64, trainable=False)

    def call(self, inputs: Any) -> Any:
        x = inputs["x"] if isinstance(inputs, dict) else inputs
        scale = tf.where(self.own % 3 == 0, 0.5, 1.0)
        return self.dense(x) * tf.cast(scale, x.dtype)

    def train_step(self, data: Any) -> Any:
        self.own.assign_add(1)
        return super().train_step(data)


def compiled(**options: Any) -> Any:
    model = Counting()
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([4, 7], [0.01, 0.001, 0.1])
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse", metrics=["mae", Count()], **options)
    return model


def pairs(count: int = 10) -> Any:
    return tf.data.Dataset.from_tensor_slices(records(count))


def generated(*, begin_again: bool = True) -> Any:
    once = zip(*records(), strict=True)

    def each() -> Iterator[Any]:
        yield from zip(*records(), strict=True) if begin_again else once

    signature = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((1,), tf.float32))
    return tf.data.Dataset.from_generator(each, output_signature=signature)


def as_dict(x: Any, y: Any) -> Any:
    return {"x": x}, y, tf.ones_like(y)


DATASETS: dict[str, Callable[[], Any]] = {
    "whole batches": lambda: pairs().batch(2),
    "a ragged last batch": lambda: pairs().batch(3),
    "one batch": lambda: pairs().batch(10),
    "not batched by batch": lambda: pairs(4).map(lambda x, y: (x[None], y[None])),
    "drop_remainder": lambda: pairs().batch(4, drop_remainder=True),
    "structure": lambda: pairs().batch(4).map(as_dict),
    "shuffled": lambda: pairs().shuffle(5).batch(3),
    "shuffled with a seed": lambda: pairs().shuffle(5, seed=3).batch(3).prefetch(2),
    "shuffled once": lambda: pairs().shuffle(5, seed=3, reshuffle_each_iteration=False).batch(3),
    "cached": lambda: pairs().cache().shuffle(20).batch(4).prefetch(tf.data.AUTOTUNE),
    "noisy": lambda: pairs().map(lambda x, y: (x + tf.random.uniform([]), y)).batch(5),
    "unknown length": lambda: pairs().filter(lambda x, _: x[0] != 4).batch(2),
    "unknown length, ragged": lambda: pairs().filter(lambda x, _: x[0] != 4).batch(4),
    "unknown length, structure": lambda: pairs().filter(lambda x, _: x[0] < 9).batch(3).map(as_dict),
    "unknown length, shuffled": lambda: pairs().filter(lambda x, _: x[0] < 9).shuffle(4, seed=1).batch(2),
    "generator": lambda: generated().batch(3),
    "ragged and shuffled generator": lambda: generated().shuffle(5, seed=2).batch(4),
    "asserted length": lambda: generated().batch(2).apply(tf.data.experimental.assert_cardinality(5)),
    "repeated": lambda: pairs().repeat(2).batch(6),
}


def length_of(make: Callable[[], Any]) -> int:
    return sum(1 for _ in make())


def fitted(make: Callable[[], Any], **options: Any) -> tuple[Any, Any]:
    keras.utils.set_random_seed(7)
    model = compiled(**options)
    length = length_of(make)
    keras.utils.set_random_seed(7)
    data = make().apply(tf.data.experimental.assert_cardinality(length))  # `fit` is wrong without
    history = model.fit(data, epochs=EPOCHS, verbose=0, shuffle=False, validation_data=pairs(4).batch(2))
    return model, history.history


def trial_of(make: Callable[[], Any], models: list[Any], **options: Any) -> Any:
    class Passing(Tiny):
        def build_model(self) -> Any:
            models.append(self.context.wrap_model(compiled(**options)))
            return models[-1]

        def build_training_data_loader(self) -> Any:
            return make()

        def build_validation_data_loader(self) -> Any:
            return pairs(4).batch(2)

    return Passing


def state_of(model: Any) -> list[Any]:
    """Weights, slots, `iterations` and the user's own counter."""
    variables = model.optimizer.variables
    found = [*model.variables, *(variables() if callable(variables) else variables), model.own]
    return [np.asarray(one).tolist() for one in found if "seed" not in one.name]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in DATASETS),
        ("unknown length", {"run_eagerly": True}),
        ("unknown length, ragged", {"jit_compile": True}),
        ("a ragged last batch", {"jit_compile": True}),
        ("unknown length", {"steps_per_execution": 3}),
        ("a ragged last batch", {"steps_per_execution": 3}),
    ],
)
def test_the_numbers_are_those_of_fit(folder: Folder, kind: str, options: dict[str, Any]) -> None:
    make, models = DATASETS[kind], []
    length = length_of(make)
    plain, history = fitted(make, **{k: v for k, v in options.items() if k != "steps_per_execution"})
    outcome = folder.drive(
        trial_of(make, models, **options),
        max_length=Length("batches", EPOCHS * length),
        config={"scheduling_unit": length, "min_validation_period": length},
    )
    assert int(models[0].own) == int(models[0].optimizer.iterations) == EPOCHS * length
    for name in ("loss", "mae", "steps"):
        assert [metrics[name] for _, metrics in outcome.training] == history[name]
        assert [metrics[f"val_{name}"] for _, metrics in outcome.validations] == history[f"val_{name}"]
    assert state_of(models[0]) == state_of(plain)


@pytest.mark.parametrize("kind", ["shuffled", "cached", "two shuffles", "shuffled and repeated", "generator"])
@pytest.mark.parametrize("cut", [1, 3, 4, 6, 7, 8])
def test_a_run_resumed_at_any_batch_equals_one_that_was_not_cut(tmp_path: Any, kind: str, cut: int) -> None:
    more = {
        "two shuffles": lambda: pairs().shuffle(4).batch(3).shuffle(2),
        "shuffled and repeated": lambda: pairs(6).shuffle(4).repeat(2).batch(3),
    }
    make, ends = (DATASETS | more)[kind], []
    for cuts in ((), (cut,)):
        (tmp_path / f"{cuts}").mkdir()
        folder, models, checkpoints = Folder(tmp_path / f"{cuts}"), [], ()
        for length in (*cuts, 10):
            trial = trial_of(make, models)
            outcome = folder.drive(trial, max_length=Length("batches", length), checkpoints=checkpoints)
            checkpoints = (outcome.newest,)
        ends.append(state_of(models[-1]))
    assert ends[0] == ends[1]


class CountingValidations(Counting):
    """Counts the steps of validation, too."""

    def test_step(self, data: Any) -> Any:
        self.own.assign_add(1)
        return super().test_step(data)


def test_a_validation_of_unknown_length_costs_the_steps_that_it_has(folder: Folder) -> None:
    models: list[Any] = []

    class Validating(trial_of(lambda: pairs().batch(5), models)):  # type: ignore[misc]
        def build_model(self) -> Any:
            models.append(self.context.wrap_model(CountingValidations()))
            models[-1].compile(optimizer="sgd", loss="mse", metrics=["mae", Count()])
            return models[-1]

        def build_validation_data_loader(self) -> Any:
            return pairs(6).filter(lambda *_: True).batch(4)

    outcome = folder.drive(Validating, max_length=Length("batches", 4), config={"min_validation_period": 2})
    assert [metrics["val_steps"] for _, metrics in outcome.validations] == [2, 2]
    assert int(models[0].own) == 4 + 2 * 2


def test_data_that_can_be_read_once_only_is_named(folder: Folder) -> None:
    trial = trial_of(lambda: generated(begin_again=False).batch(2), [])
    with pytest.raises(InvalidTrialError, match="the training data ended after 5 batches"):
        folder.drive(trial)


class Unending(keras.utils.Sequence):
    """Has no length, as a PyDataset may have none."""

    num_batches = None

    def __getitem__(self, index: int) -> Any:
        return records(2)


def test_an_empty_dataset_is_refused(folder: Folder) -> None:
    data = tf.data.Dataset.from_tensor_slices(records())
    for empty in (data.batch(20, drop_remainder=True), data.filter(lambda *_: False).batch(2)):
        with pytest.raises(InvalidTrialError, match=r"no batches|could not be restarted"):
            folder.drive(building("build_training_data_loader", lambda _, empty=empty: empty))


@pytest.mark.parametrize(
    ("method", "value", "says"),
    [
        ("build_validation_data_loader", forever, "is endless"),
        ("build_validation_data_loader", lambda _: forever(0).take(0), "has no batches"),
        ("build_validation_data_loader", lambda _: records(0), "has no records"),
        ("build_validation_data_loader", lambda _: Unending(), "Unending (is endless|has no length)"),
        ("build_training_data_loader", lambda _: Unending(), "Unending (is endless|has no length)"),
        ("build_training_data_loader", lambda _: iter(()), "returned a builtins.tuple_iterator"),
    ],
)
def test_data_that_cannot_be_used_is_refused_at_its_method(
    folder: Folder, method: str, value: Any, says: str
) -> None:
    with pytest.raises(InvalidTrialError, match=rf"driving\.py:\d+: .*{says}"):
        folder.drive(building(method, value))
