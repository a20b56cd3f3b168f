"""A Keras trial validates one batch before training: mistakes are found, and nothing else changes."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from determined._contract.errors import InvalidTrialError
from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from tests.unit.harness.keras.driving import Folder, Tiny, keras, records

if TYPE_CHECKING:
    from collections.abc import Callable

METRIC = {"searcher": {"metric": "val_loss"}, "min_validation_period": 3, "scheduling_unit": 2}
COUNTS = {"traced": 0}


class Unread(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        pytest.fail("it was trained")


def dense(cls: Any = keras.Model, *layers: Any) -> Any:
    inputs = keras.Input((2,))
    outputs = inputs
    for layer in (*layers, keras.layers.Dense(1)):
        outputs = layer(outputs)
    return cls(inputs, outputs)


def trial(make: Callable[[], Any], *, data: Any = None, callbacks: Any = (), **compiled: Any) -> type[Tiny]:
    class Made(Tiny):
        def build_model(self) -> Any:
            model = self.context.wrap_model(make())
            model.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **compiled})
            return model

        def build_validation_data_loader(self) -> Any:
            return data() if data else records(5)

        def keras_callbacks(self) -> Any:
            return list(callbacks)

    return Made


class Assigning(keras.Model):
    """Assigns variables, counts in Python, draws, and reports all of that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = tf.Variable(0.0, trainable=False)
        self.only_assigned = tf.Variable(0.0, trainable=False)
        self.traced, self.drawn, self.lists = 0, [], {"a": [1]}
        self.numbers = np.random.default_rng(3)

    def test_step(self, data: Any) -> Any:
        self.traced += 1
        COUNTS["traced"] += 1
        self.lists["a"].append(self.traced)
        self.drawn.append(float(self.numbers.random() + np.random.rand()))  # noqa: NPY002
        found = dict(super().test_step(data))
        self.only_assigned.assign(self.seen)
        for weight in self.trainable_variables:
            weight.assign(weight * 0.9)
        seen = self.seen.assign_add(1.0)
        more = {"traced": self.traced, "drawn": sum(self.drawn), "length": len(self.lists["a"])}
        return {**found, "seen": seen, **{k: tf.constant(float(v)) for k, v in more.items()}}


class Helped(keras.Model):
    """Calls a compiled function of its own, in training too."""

    traced = 0

    @tf.function
    def helper(self, value: Any) -> Any:
        self.traced += 1
        return value * float(self.traced)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = tf.reduce_mean(tf.square(predicted - y)) * self.helper(tf.constant(1.0))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {**self.compute_metrics(x, y, predicted, None), "loss": loss}

    def test_step(self, data: Any) -> Any:
        x, y = data
        predicted = self(x, training=False)
        found = self.compute_metrics(x, y, predicted, None)
        loss = self.helper(tf.reduce_mean(tf.square(predicted - y)))
        return {**found, "loss": loss, "at": float(self.traced)}


class Noisy(keras.Model):
    def test_step(self, data: Any) -> Any:
        found = dict(super().test_step(data))
        return {**found, "noise": tf.random.uniform([]), "seeded": tf.random.normal([], seed=3)}


class Unbuilt(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop = keras.layers.Dense(3), keras.layers.Dropout(0.5)
        self.out = keras.layers.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.inner(inputs), training=training))


def built() -> Any:
    model = Unbuilt()
    model(np.zeros((1, 2), "float32"))
    return model


class Always(keras.layers.Layer):
    """Dropout, in validation too."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, inputs: Any) -> Any:
        return self.drop(inputs, training=True)


class Total(keras.metrics.Metric):
    """Is never reset."""

    def __init__(self) -> None:
        super().__init__(name="total")
        self.total = self.add_weight(name="t", initializer="zeros")
        self.python = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.python += 1
        self.total.assign_add(float(self.python) + tf.reduce_sum(tf.cast(y_true, tf.float32) - y_pred))

    def result(self) -> Any:
        return self.total + 0.0

    def reset_state(self) -> None:
        pass


class Pairs(keras.utils.Sequence):
    """Counts, and draws from generators of its own and of numpy."""

    def __init__(self, **kept: Any) -> None:
        super().__init__()
        self.read, self.own, self.kept = 0, np.random.default_rng(1), kept

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        x, y = (part[2 * index : 2 * index + 2] for part in records())
        return x + self.read + self.own.random() + np.random.rand(), y  # noqa: NPY002


def several() -> Any:
    inputs = keras.Input((2,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
    outputs = {"a": keras.layers.Dense(1, name="a")(hidden), "b": keras.layers.Dense(1, name="b")(hidden)}
    return keras.Model(inputs, outputs)


def several_records() -> Any:
    x, y = records(5)
    return x, {"a": y, "b": 2 * y}


class Several(Tiny):
    def build_model(self) -> Any:
        model = self.context.wrap_model(several())
        model.compile("adam", loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"], "b": ["mse", "accuracy"]})
        return model

    def build_training_data_loader(self) -> Any:
        return several_records()

    def build_validation_data_loader(self) -> Any:
        return several_records()


def dataset(change: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: change(tf.data.Dataset.from_tensor_slices(records(7)))


def generated() -> Any:
    pairs = iter([records(2), records(3)] * 20)
    spec = (tf.TensorSpec((None, 2)), tf.TensorSpec((None, 1)))
    return tf.data.Dataset.from_generator(lambda: (next(pairs) for _ in range(2)), output_signature=spec)


def noisy(x: Any, y: Any) -> Any:
    return x + tf.random.uniform([]), y


layers = keras.layers
DATA: dict[str, Any] = {
    "arrays": None,
    "batches": dataset(lambda d: d.batch(2)),
    "mapped": dataset(
        lambda d: d.map(lambda x, y: (x * 2, y)).filter(lambda x, y: True).batch(2).prefetch(1)
    ),
    "shuffled": dataset(lambda d: d.shuffle(7).batch(2)),
    "seeded shuffle": dataset(lambda d: d.shuffle(7, seed=1).batch(2)),
    "cached": dataset(lambda d: d.shuffle(7).cache().batch(2)),
    "drawn": dataset(lambda d: d.map(noisy).batch(2)),
    "generated": generated,
    "sequence": Pairs,
    "read once": lambda: Pairs(once=iter([1])),
}
MODELS: dict[str, Any] = {
    "plain": dense,
    "assigning": lambda: dense(Assigning, layers.BatchNormalization()),
    "helped": lambda: dense(Helped),
    "noisy": lambda: dense(Noisy),
    "dropout": lambda: dense(keras.Model, layers.Dense(4), layers.Dropout(0.5)),
    "always": lambda: dense(keras.Model, layers.Dense(4), Always()),
    "noise": lambda: dense(keras.Model, layers.GaussianNoise(0.5), layers.BatchNormalization()),
    "unbuilt": Unbuilt,
    "unbuilt sequential": lambda: keras.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.Dense(1)]),
    "built": built,
}
COMPILED: dict[str, dict[str, Any]] = {
    "plain": {},
    "stateful": {"metrics": ["mae", "accuracy"], "weighted_metrics": ["mse"]},
    "total": {},
    "eager": {"run_eagerly": True},
}


def both(folder: Folder, made: type[Tiny]) -> list[Any]:
    found = []
    for on in (True, False):
        COUNTS["traced"] = 0
        outcome = folder.drive(made, config={**METRIC, "preflight_validation": on})
        with np.load(folder.checkpoints / outcome.newest / "determined-keras-model-weights.npz") as file:
            weights = [file[name].tobytes() for name in file.files]
        states = [(steps, repr(metrics)) for steps, metrics in (*outcome.training, *outcome.validations)]
        found.append((outcome.reason, states, weights, COUNTS["traced"]))
    return found


def check(folder: Folder, model: str, data: str, compiled: str) -> None:
    options = dict(COMPILED[compiled])
    if compiled == "total":

        class WithTotal(trial(MODELS[model], data=DATA[data])):  # type: ignore[misc]
            def build_model(self) -> Any:
                made = super().build_model()
                made.compile("adam", "mse", metrics=[Total(), keras.metrics.RootMeanSquaredError()])
                return made

        on, off = both(folder, WithTotal)
    else:
        on, off = both(folder, trial(MODELS[model], data=DATA[data], **options))
    assert on == off


@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_of_each_model_are_equal_with_and_without(folder: Folder, model: str) -> None:
    check(folder, model, "batches", "total")


@pytest.mark.parametrize("data", DATA)
def test_the_numbers_of_each_data_set_are_equal_with_and_without(folder: Folder, data: str) -> None:
    check(folder, "dropout", data, "stateful")


def test_the_numbers_of_several_outputs_are_equal_with_and_without(folder: Folder) -> None:
    on, off = both(folder, Several)
    assert on == off


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*map(st.sampled_from, ([*MODELS], [*DATA], [*COMPILED])))
def test_the_numbers_are_equal_with_and_without(folder: Folder, model: str, data: str, compiled: str) -> None:
    check(folder, model, data, compiled)


SKIPPED = "skipping the preflight validation: "
TRACED = "; its step was only traced"


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        *(((model, "batches", "plain"), "") for model in ("plain", "assigning", "helped", "always", "built")),
        *((("plain", data, "stateful"), "") for data in ("arrays", "mapped", "sequence")),
        (
            ("plain", "shuffled", "plain"),
            "reading a ShuffleDataset of the validation data may have side effects" + TRACED,
        ),
        (
            ("plain", "cached", "plain"),
            "reading a CacheDataset of the validation data may have side effects" + TRACED,
        ),
        (("plain", "drawn", "plain"), "RandomUniform of the validation data may have side effects" + TRACED),
        (
            ("plain", "generated", "plain"),
            "GeneratorDataset of the validation data may have side effects" + TRACED,
        ),
        (("plain", "read once", "plain"), "can be read only once"),
        (("noisy", "batches", "plain"), "whose effect cannot be undone" + TRACED),
        (("unbuilt", "batches", "plain"), "the model creates its weights with the first batch"),
        (("plain", "batches", "eager"), "the model runs eagerly"),
    ],
)
def test_what_is_not_tried_is_said(
    folder: Folder, caplog: pytest.LogCaptureFixture, kinds: tuple[str, str, str], says: str
) -> None:
    model, data, compiled = kinds
    caplog.set_level(logging.INFO)
    made = trial(MODELS[model], data=DATA[data], **COMPILED[compiled])
    assert folder.drive(made, config=METRIC).reason is ExitReason.COMPLETED
    said = [line for record in caplog.records if (line := record.getMessage()).startswith(SKIPPED)]
    assert len(said) == bool(says)
    assert all(says in line for line in said)


class Preparing(keras.callbacks.Callback):
    def on_test_begin(self, logs: Any = None) -> None:
        self.model.prepared = True


class Prepared(keras.Model):
    def test_step(self, data: Any) -> Any:
        assert self.prepared
        return super().test_step(data)


def test_a_model_that_a_callback_prepares_is_not_tried(folder: Folder) -> None:
    made = trial(lambda: dense(Prepared), callbacks=[Preparing()])
    assert folder.drive(made, config=METRIC).reason is ExitReason.COMPLETED


class Late(keras.Model):
    def train_step(self, data: Any) -> Any:
        self.late = tf.constant(1.0)
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        return {"loss": super().test_step(data)["loss"], "late": tf.constant(float(self.late is not None))}


def test_what_training_makes_does_not_end_the_trial(folder: Folder) -> None:
    assert folder.drive(trial(lambda: dense(Late)), config=METRIC).reason is ExitReason.COMPLETED


def test_a_trial_goes_on_without_another_try(folder: Folder) -> None:
    made = trial(lambda: dense(Assigning))
    config = {**METRIC, "min_validation_period": 100}
    first = folder.drive(made, max_length=Length("batches", 2), config=config)
    assert folder.drive(made, config=config, checkpoints=(first.newest,)).reason is ExitReason.COMPLETED


class Wrong(keras.Model):
    """Fails in validation as it is told."""

    how = ""

    def test_step(self, data: Any) -> Any:
        found = dict(super().test_step(data))
        x = data[0]
        if self.how == "number":
            return found["loss"]
        if self.how == "attribute":
            return {"loss": self.nowhere}
        if self.how == "shape":
            return {"loss": tf.matmul(x, tf.zeros((5, 1)))}
        if self.how == "run":
            with tf.control_dependencies([tf.debugging.assert_less(x, -1.0, message="too large")]):
                return {"loss": found["loss"] + 0.0}
        return {"other": found["loss"]} if self.how == "name" else {"loss": tf.zeros((3,))}


def wrong(how: str) -> Callable[[], Any]:
    return lambda: dense(type("Wrong", (Wrong,), {"how": how}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            "number",
            r"test_preflight\.py:\d+: the model's test_step returned a \w*Tensor\w*, not metrics by name",
        ),
        ("attribute", "nowhere"),
        ("shape", "preflight validation failed"),
        ("run", "too large"),
        ("name", "searcher.metric is 'val_loss', but validation reported only: val_other"),
        ("vector", "searcher metric val_loss is not a number"),
    ],
)
def test_what_is_wrong_with_validation_is_found_before_training(folder: Folder, how: str, says: str) -> None:
    with pytest.raises(InvalidTrialError, match=says):
        folder.drive(trial(wrong(how), callbacks=[Unread()]), config=METRIC)


@pytest.mark.parametrize("kind", ["arrays", "batches", "sequence"])
def test_validation_data_of_a_wrong_shape_is_found_before_training(folder: Folder, kind: str) -> None:
    wide = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")

    class Wide(Pairs):
        def __getitem__(self, index: int) -> Any:
            return wide

    data = {"arrays": lambda: wide, "sequence": Wide}
    data["batches"] = lambda: tf.data.Dataset.from_tensor_slices(wide).batch(2)
    with pytest.raises(InvalidTrialError, match=r"preflight validation failed"):
        folder.drive(trial(dense, data=data[kind], callbacks=[Unread()]), config=METRIC)


def failing_loss(*_: Any) -> Any:
    raise ValueError("no such loss")


def test_a_loss_that_raises_is_found_before_training(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match="no such loss"):
        folder.drive(trial(dense, loss=failing_loss, callbacks=[Unread()]), config=METRIC)


def test_the_field_turns_it_off(folder: Folder) -> None:
    with pytest.raises(pytest.fail.Exception, match="it was trained"):
        folder.drive(
            trial(wrong("number"), callbacks=[Unread()]), config={**METRIC, "preflight_validation": False}
        )


@pytest.mark.parametrize("line", ["x.missing", "tf.matmul(x, tf.zeros((5, 1)))", "tf.gather(x, [99])[0, 0]"])
def test_the_place_of_what_fails_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    lines = ["import tensorflow as tf", "class Mine(tf.keras.Model):", "    def test_step(self, data):"]
    lines += ["        x, y = data", f"        return {{'loss': {line}}}"]
    name = f"placed_{abs(hash(line))}"
    (folder.path / "context" / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder.path / "context"))
    mine = importlib.import_module(name).Mine
    with pytest.raises(InvalidTrialError, match=rf"{name}\.py:5 in test_step: \w+Error: [^\n]+$"):
        folder.drive(trial(lambda: dense(mine), callbacks=[Unread()]), config=METRIC)
