"""A run that is interrupted and resumed reads, computes and ends as one that is not, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from determined.keras import callbacks
from tests.unit.harness.keras.driving import KERAS_3, Folder, Tiny, keras, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LENGTH = 11  # two epochs and a bit


@dataclass
class Log:
    """What a trial read and computed, over all its runs."""

    batches: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)  # after each batch
    drawn: list[float] = field(default_factory=list)
    leave_after: int | None = None


class Watch(callbacks.Callback):
    """Draws from the global generators as a user's callback may, and leaves when it is time."""

    def __init__(self, log: Log, folder: Folder) -> None:
        super().__init__()
        self.log, self.folder = log, folder

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.log.drawn.append(float(np.random.rand()))  # noqa: NPY002
        self.log.weights.append([one.tolist() for one in self.model.get_weights()])
        if self.log.leave_after == batch + 1:
            self.folder.run.ask_to_stop()


class Batches(keras.utils.Sequence):
    """Shuffles itself after each epoch, and draws noise for each batch, from numpy's global generator."""

    def __init__(self, *, own_shuffle: bool = False, noise: bool = False) -> None:
        if KERAS_3:
            super().__init__()
        self.x, self.y = records()
        self.order = np.arange(10)
        self.own_shuffle, self.noise = own_shuffle, noise

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        chosen = self.order[2 * index : 2 * index + 2]
        noise = np.random.rand(2, 1) if self.noise else 0.0  # noqa: NPY002
        return self.x[chosen] + noise, self.y[chosen]

    def on_epoch_end(self) -> None:
        if self.own_shuffle:
            np.random.shuffle(self.order)  # noqa: NPY002


def dataset(*, shuffle: bool) -> Any:
    found = tf.data.Dataset.from_tensor_slices(records())
    return (found.shuffle(7) if shuffle else found).batch(2).prefetch(2)


def from_python(*, shuffle: bool) -> Any:
    def each() -> Iterator[Any]:
        yield from zip(*records(), strict=True)

    signature = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((1,), tf.float32))
    found = tf.data.Dataset.from_generator(each, output_signature=signature)
    return (found.shuffle(7) if shuffle else found).batch(2)


def noisy(*, shuffle: bool) -> Any:
    found = dataset(shuffle=shuffle)
    return found.map(lambda x, y: (x + tf.random.uniform([]), y))


LOADERS = {
    "arrays": records,
    "an odd number of records": lambda: records(9),
    "arrays and weights": lambda: (*records(), np.linspace(0, 1, 10)),
    "sequence": Batches,
    "sequence with its own order": lambda: Batches(own_shuffle=True),
    "sequence with noise": lambda: Batches(noise=True),
    "dataset": lambda: dataset(shuffle=False),
    "shuffled dataset": lambda: dataset(shuffle=True),
    "generator": lambda: from_python(shuffle=False),
    "shuffled generator": lambda: from_python(shuffle=True),
    "noisy dataset": lambda: noisy(shuffle=True),
}


class Logged(Tiny):
    log: Log
    folder: Folder
    loader: str
    dropout: float = 0.5
    workers: int = 1
    shuffle: bool = True
    built: bool = True

    def build_model(self) -> Any:
        log = self.log
        self.context.configure_fit(workers=self.workers, shuffle=self.shuffle)
        layers = [
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(self.dropout),
            keras.layers.Dense(1),
        ]
        first = [keras.Input((2,))] if self.built else []

        class Model(keras.Sequential):
            def train_step(self, data: Any) -> Any:
                tf.py_function(lambda x: log.batches.append(x.numpy().tolist()), [data[0]], [])
                return super().train_step(data)

        model = self.context.wrap_model(Model([*first, *layers]))
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", jit_compile=False)
        return model

    def build_training_data_loader(self) -> Any:
        return LOADERS[self.loader]()

    def keras_callbacks(self) -> Any:
        return [
            Watch(self.log, self.folder),
            callbacks.EarlyStopping(patience=100),
            callbacks.ReduceLROnPlateau(patience=1, factor=0.5, monitor="val_loss", min_delta=1.0),
        ]


def trained(path: Path, cuts: tuple[int, ...], **options: Any) -> Log:
    """Train `LENGTH` batches, asked to leave after each of `cuts`."""
    path.mkdir()
    log, folder = Log(), Folder(path)
    trial = type("Trial", (Logged,), {"log": log, "folder": folder, **options})
    config = {"min_validation_period": 4, "scheduling_unit": 3, "checkpoint_policy": "none"}
    checkpoints: tuple[str, ...] = ()
    for cut in (*cuts, None):
        log.leave_after = cut
        outcome = folder.drive(
            trial, max_length=Length("batches", LENGTH), config=config, checkpoints=checkpoints
        )
        assert outcome.reason is (ExitReason.PREEMPTED if cut else ExitReason.COMPLETED)
        checkpoints = (outcome.newest,)
    return log


def assert_equal(cut: Log, whole: Log) -> None:
    assert cut.batches == whole.batches
    assert cut.drawn == whole.drawn
    assert cut.weights == whole.weights


@pytest.mark.parametrize("loader", LOADERS)
def test_every_kind_of_data_goes_on_exactly(tmp_path: Path, loader: str) -> None:
    """Cut in the second epoch, where nothing is due."""
    assert_equal(
        trained(tmp_path / "cut", (7,), loader=loader), trained(tmp_path / "whole", (), loader=loader)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"loader": "arrays", "shuffle": False},
        {"loader": "sequence with its own order", "shuffle": False},
        {"loader": "sequence with its own order", "workers": 3},
        {"loader": "arrays", "built": False, "cuts": (3, 10)},
        {"loader": "shuffled dataset", "built": False},
    ],
    ids=str,
)
def test_options_do_not_matter(tmp_path: Path, options: dict[str, Any]) -> None:
    """Cut at the end of an epoch, if not elsewhere."""
    cuts = options.pop("cuts", (5,))
    assert_equal(trained(tmp_path / "cut", cuts, **options), trained(tmp_path / "whole", (), **options))


class Pair(keras.Model):
    """Two parts with an optimizer each, and neither with weights before the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = keras.layers.Dense(2), keras.layers.Dense(1)

    def compile(self, one: Any, other: Any) -> None:
        super().compile()
        self.optimizers_ = {"one": one}
        self.second = other

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self.other(self.one(x)) - y) ** 2)
        for part, optimizer in ((self.one, self.optimizers_["one"]), (self.other, self.second)):
            gradients = tape.gradient(loss, part.trainable_variables)
            optimizer.apply_gradients(zip(gradients, part.trainable_variables, strict=True))
        return {"loss": loss}

    def test_step(self, data: Any) -> dict[str, Any]:
        return {"loss": tf.reduce_mean((self.other(self.one(data[0])) - data[1]) ** 2)}


class Adversaries(Tiny):
    def build_model(self) -> Any:
        model = self.context.wrap_model(Pair())
        one = self.context.wrap_optimizer(keras.optimizers.Adam(0.01))
        model.compile(one, keras.optimizers.Adam(0.1))
        return model


def test_a_train_step_with_optimizers_of_its_own_goes_on_exactly(folder: Folder) -> None:
    def saved(uuid: str) -> list[Any]:
        found = []
        for name in ("model", "optimizer"):
            with np.load(folder.checkpoints / uuid / f"determined-keras-{name}-weights.npz") as file:
                found += [file[name].tolist() for name in file.files]
        return found

    whole = folder.drive(Adversaries, max_length=Length("batches", 6))
    half = folder.drive(Adversaries, max_length=Length("batches", 4))
    resumed = folder.drive(Adversaries, max_length=Length("batches", 6), checkpoints=(half.newest,))
    assert len(saved(whole.newest)) >= 4 + 2 * 6  # weights; steps, rate and two moments of each
    assert saved(resumed.newest) == saved(whole.newest)
