"""Feeds: training data as `tf.data` iterators that can start at any batch, and shared helpers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import numpy as np

from determined._contract.errors import InvalidTrialError
from determined.keras._tf import keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from determined.keras._types import InputData, Untyped

_PAIR, _TRIPLE = 2, 3  # (x, y) and (x, y, weights)


ENDLESS = sys.maxsize  # steps


class Feed(Protocol):
    """An endless stream of training batches, distributed to the devices."""

    epoch_length: int | None  # steps; None if unknown
    failure: BaseException | None  # error of user code in a TensorFlow thread

    def begin(self, step: int, saved: Path | None) -> None:
        """Prepare the batches from a step on; `saved` is the directory written by `save` at that step."""

    def reader(self, step: int) -> tuple[Untyped, int]:
        """Return an iterator for a step, and for how many steps it certainly has batches."""

    def stepping(self, train: Callable[[Untyped], Untyped]) -> Callable[[Untyped], Untyped]:
        """Return the train function, adapted so that each step gets a batch."""

    def save(self, directory: Path) -> None:
        """Write the state that `begin` needs in addition to the step."""

    def spec(self) -> Untyped:
        """Return the tf.TensorSpec of a batch of one device."""


class OneBatchSpec(tf.TypeSpec):  # type: ignore[misc]  # TensorFlow is untyped
    """The type of a `OneBatch`, equally general as that of an iterator, so that a step is compiled once."""

    @property
    def value_type(self) -> type[OneBatch]:
        return OneBatch

    def __init__(self, element_spec: Untyped) -> None:
        self._element_spec = element_spec

    def _serialize(self) -> Untyped:
        return (self._element_spec,)

    @property
    def _component_specs(self) -> Untyped:
        return self._element_spec

    def _to_components(self, value: OneBatch) -> Untyped:
        return value.batch

    def _from_components(self, components: Untyped) -> OneBatch:
        return OneBatch(components, self)


class OneBatch(tf.data.Iterator):  # type: ignore[misc]  # TensorFlow is untyped
    """An iterator over one batch that was already read, for a compiled step."""

    def __init__(self, batch: Untyped, spec: OneBatchSpec) -> None:
        self.batch, self._spec = batch, spec

    @property
    def _type_spec(self) -> OneBatchSpec:
        return self._spec

    @property
    def element_spec(self) -> Untyped:
        return self._spec._element_spec  # noqa: SLF001  (the two classes belong together)

    def __iter__(self) -> OneBatch:
        return self

    def __next__(self) -> Untyped:
        return self.batch

    def get_next(self) -> Untyped:
        return self.batch

    def get_next_as_optional(self) -> Untyped:
        return tf.experimental.Optional.from_value(self.batch)


def distribute(dataset: Untyped, strategy: Untyped) -> Untyped:
    """Return an iterator that gives the next batch to each device."""
    if strategy.num_replicas_in_sync == 1:
        return iter(dataset)
    return iter(strategy.distribute_datasets_from_function(lambda _: dataset))


def without_read_ahead(dataset: Untyped) -> Untyped:
    """Disable TensorFlow's implicit read-ahead, which may change random draws."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def steps_of(batches: int, replicas: int) -> int:
    """Return the number of steps that train a number of batches."""
    return -(-batches // replicas)


def plain(data: Untyped) -> Untyped:
    """Convert data as Keras does: lists to tuples, frames to arrays, floats to its `floatx`."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return tuple(plain(item) for item in data)
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    if isinstance(data, np.ndarray) and data.dtype.kind == "f":
        return data.astype(keras.backend.floatx(), copy=False)
    return data


def is_arrays(data: InputData) -> bool:
    return isinstance(data, tuple) and len(data) in {_PAIR, _TRIPLE}


def without_none(data: tuple[Untyped, ...]) -> tuple[Untyped, ...]:
    """Convert `(x, y, None)` to `(x, y)`."""
    return data[:_PAIR] if len(data) == _TRIPLE and data[-1] is None else data


def weighted(dataset: Untyped, class_weight: Mapping[int, float] | None) -> Untyped:
    """Multiply the weight of every record by the weight of its class."""
    if not class_weight:
        return dataset
    table = np.ones(max(class_weight) + 1, dtype=keras.backend.floatx())
    for number, weight in class_weight.items():
        table[number] = weight

    def weigh(x: Untyped, y: Untyped, weights: Untyped = None) -> Untyped:
        if not tf.is_tensor(y):
            raise InvalidTrialError(
                "class_weight does not support models with several outputs",
                hint="return the weight of each record as the third part of (x, y, weights)",
            )
        one_hot = y.shape.rank is not None and y.shape.rank > 1
        classes = y if not one_hot else tf.argmax(y, -1) if y.shape[-1] != 1 else tf.squeeze(y, -1)
        rounded = tf.round(classes) if classes.dtype.is_floating else classes
        found = tf.gather(table, tf.minimum(tf.cast(rounded, tf.int64), len(table) - 1))
        return x, y, found if weights is None else found * tf.cast(weights, found.dtype)

    table = np.append(table, table.dtype.type(1))  # weight of all other classes
    return dataset.map(weigh, num_parallel_calls=tf.data.AUTOTUNE)
