"""Feeds: endless training batches that can start at any step, from arrays or from a Sequence or PyDataset.

The order of an epoch depends only on its seed, so a resumed run reads the same batches. `preserved` keeps
the random states of Python and numpy as they are while user code is called outside its turn.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from determined._contract.errors import InvalidTrialError
from determined._trial.state import derive, seed_python
from determined.keras._tf import keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from determined.keras._tf import InputData, Untyped
    from determined.keras._trial import Fit

_PAIR, _TRIPLE = 2, 3  # (x, y) and (x, y, weights)
ENDLESS = sys.maxsize  # steps
_EPOCHS = 1 << 62  # epochs
_SEEDS = 1 << 31


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


def _without_read_ahead(dataset: Untyped) -> Untyped:
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


class ArrayFeed:
    """Arrays `(x, y)` or `(x, y, weights)`, in batches of `batch_size` for each device.

    The remaining records of an epoch are split evenly into a last global batch, or dropped if there is less
    than one per device.
    """

    def __init__(
        self,
        data: tuple[Untyped, ...],
        batch_size: int,
        *,
        seed: int | None,
        strategy: Untyped,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._iterator: Untyped = None
        self._data = tf.nest.map_structure(tf.convert_to_tensor, plain(without_none(data)))
        self._seed, self._strategy, self._class_weight = seed, strategy, class_weight
        self._count = _records(self._data)
        self._size = batch_size
        self._replicas: int = strategy.num_replicas_in_sync
        self._full, rest = divmod(self._count, batch_size * self._replicas)
        self._tail = _split(rest, self._replicas)
        self.epoch_length: int | None = self._full + bool(self._tail)
        if not self.epoch_length:
            raise InvalidTrialError(
                f"the training data has {self._count} records, less than one for each device",
                hint="check the arrays that build_training_data_loader returns",
            )

    def begin(self, step: int, saved: Path | None) -> None:  # noqa: ARG002  (the other kinds of feed need it)
        assert self.epoch_length
        epoch, offset = divmod(step, self.epoch_length)
        epochs = tf.data.Dataset.range(epoch, _EPOCHS).map(self._order).prefetch(1)
        indices = epochs.flat_map(self._batches).skip(offset * self._replicas)
        self._iterator = distribute(self._gathered(indices), self._strategy)

    def reader(self, step: int) -> tuple[Untyped, int]:  # noqa: ARG002  (as above)
        return self._iterator, ENDLESS

    def stepping(self, train: Callable[[Untyped], Untyped]) -> Callable[[Untyped], Untyped]:
        return train

    def save(self, directory: Path) -> None: ...

    def spec(self) -> Untyped:
        return self._gathered(tf.data.Dataset.range(1).map(self._order).flat_map(self._batches)).element_spec

    def _order(self, epoch: Untyped) -> Untyped:
        indices = tf.range(self._count, dtype=tf.int64)
        if self._seed is None:
            return indices
        seed = tf.stack([tf.constant(self._seed % _SEEDS, tf.int64), epoch])
        return tf.random.experimental.stateless_shuffle(indices, seed=seed)

    def _batches(self, indices: Untyped) -> Untyped:
        """Split an epoch's order into batches; one reshape is much faster than a slice per batch."""
        whole = self._full * self._replicas
        end = whole * self._size
        batches = tf.data.Dataset.from_tensor_slices(tf.reshape(indices[:end], [whole, self._size]))
        for size in self._tail:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(indices[end : end + size]))
            end += size
        return batches

    def _gathered(self, indices: Untyped) -> Untyped:
        # The arrays are zipped in: as captured constants, each copy of the function would hold them all.
        both = tf.data.Dataset.zip((indices, tf.data.Dataset.from_tensors(self._data).repeat()))
        batches = both.map(
            lambda index, data: tf.nest.map_structure(lambda array: tf.gather(array, index), data),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False
        return weighted(batches.with_options(options), self._class_weight).prefetch(tf.data.AUTOTUNE)


def _records(data: Untyped) -> int:
    lengths = {int(array.shape[0]) if array.shape.rank else 0 for array in tf.nest.flatten(data)}
    if len(lengths) != 1:
        raise InvalidTrialError(
            f"the arrays of the training data differ in length: {', '.join(map(str, sorted(lengths)))}",
            hint="return (x, y) or (x, y, weights) with one entry for each record",
        )
    return lengths.pop()


def _split(records: int, replicas: int) -> tuple[int, ...]:
    """Return the sizes of the last batches of an epoch; none if a device would have no record."""
    if records < replicas:
        return ()
    share, more = divmod(records, replicas)
    return tuple(share + (rank < more) for rank in range(replicas))


class SequenceAdapter:
    """A Sequence with read options, as in trials of Determined 0.12; replaced by `configure_fit`.

    Args:
        data: the Sequence.
        use_multiprocessing: has no effect: threads read.
        workers: threads that read it; 1 does not read ahead.
        max_queue_size: batches that several workers prefetch.
    """

    def __init__(
        self,
        data: Untyped,
        use_multiprocessing: bool = False,  # noqa: ARG002, FBT001, FBT002  (Determined's own signature)
        workers: int = 1,
        max_queue_size: int = 10,
    ) -> None:
        self.data, self.workers, self.max_queue_size = data, workers, max_queue_size

    def __len__(self) -> int:
        return len(self.data)


class SequenceFeed:
    """Reads a Sequence batch by batch, or ahead in threads if it has several workers.

    `on_epoch_begin` and `on_epoch_end` are called between its passes, each with its own seed, so that a
    Sequence that shuffles itself there has the same order in a resumed run.
    """

    def __init__(self, sequence: Untyped, fit: Fit, *, seed: int, strategy: Untyped) -> None:
        self.failure: BaseException | None = None
        self._iterator: Untyped = None
        self._sequence: Untyped = sequence
        self._fit, self._seed, self._strategy = fit, seed, strategy
        self._length = batches_of(sequence)
        self._replicas: int = strategy.num_replicas_in_sync
        self.epoch_length: int | None = steps_of(self._length, self._replicas)
        self._begun = 0  # number of passes
        self._orders: dict[int, list[int]] = {}
        self._spec: Untyped = None

    def begin(self, step: int, saved: Path | None) -> None:  # noqa: ARG002  (the other kinds of feed need it)
        first = step * self._replicas
        batches = tf.data.Dataset.from_generator(
            lambda: self._read(first), output_signature=self._signature()
        )
        self._iterator = distribute(
            weighted(_without_read_ahead(batches), self._fit.class_weight), self._strategy
        )

    def reader(self, step: int) -> tuple[Untyped, int]:  # noqa: ARG002  (as above)
        return self._iterator, ENDLESS

    def stepping(self, train: Callable[[Untyped], Untyped]) -> Callable[[Untyped], Untyped]:
        return train

    def save(self, directory: Path) -> None: ...

    def spec(self) -> Untyped:
        batches = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=self._signature())
        return weighted(batches, self._fit.class_weight).element_spec

    def _read(self, first: int) -> Iterator[Untyped]:
        workers: Untyped = self._fit.workers or getattr(self._sequence, "workers", 1)
        try:
            yield from self._in_step(first) if workers <= 1 else self._ahead(first, workers)
        except Exception as error:
            self.failure = error  # TensorFlow only keeps its text
            raise

    def _in_step(self, first: int) -> Iterator[Untyped]:
        for number in count(first):
            self._begin_passes(number // self._length)
            yield self._batch(number)

    def _ahead(self, first: int, workers: int) -> Iterator[Untyped]:
        """Read ahead, but not into the next pass, before which the Sequence may change."""
        with ThreadPoolExecutor(workers) as pool:
            while True:
                epoch = first // self._length
                self._begin_passes(epoch)
                numbers = iter(range(first, (epoch + 1) * self._length))
                queue = deque(pool.submit(self._batch, n) for n in islice(numbers, self._fit.max_queue_size))
                while queue:
                    batch = queue.popleft().result()
                    queue.extend(pool.submit(self._batch, n) for n in islice(numbers, 1))
                    yield batch
                first = (epoch + 1) * self._length

    def _begin_passes(self, epoch: int) -> None:
        """Call the Sequence's epoch hooks up to a pass; a resumed run may have several to call."""
        while self._begun <= epoch:
            with preserved(derive(self._seed, "pass", self._begun)):
                if self._begun > 0:
                    self._sequence.on_epoch_end()
                if hasattr(self._sequence, "on_epoch_begin"):
                    self._sequence.on_epoch_begin()
            self._begun += 1

    def _batch(self, number: int) -> Untyped:
        epoch, place = divmod(number, self._length)
        return batch_tuple(self._sequence[self._order(epoch)[place]])

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = list(range(self._length))
            if self._fit.shuffle:
                random.Random(derive(self._seed, "order", epoch)).shuffle(order)  # noqa: S311  (no secret)
            self._orders = {epoch: order}
        return self._orders[epoch]

    def _signature(self) -> Untyped:
        if self._spec is None:
            with preserved():
                first, last = batch_tuple(self._sequence[0]), batch_tuple(self._sequence[self._length - 1])
            self._spec = tf.nest.map_structure(batch_spec, first, last)
        return self._spec


def batches_of(sequence: Untyped) -> int:
    """Return the number of batches of a Sequence or PyDataset.

    Raises:
        InvalidTrialError: it is 0 or unknown.
    """
    name = type(sequence).__name__
    try:
        length = len(sequence) if hasattr(sequence, "__len__") else sequence.num_batches
    except (NotImplementedError, AttributeError, TypeError, ValueError) as error:
        raise InvalidTrialError(
            f"{name} has no length: {error}", hint=f"return the number of batches from {name}.__len__"
        ) from error
    if length is None:
        raise InvalidTrialError(
            f"{name} is endless: its num_batches is None", hint=f"return a number from {name}.num_batches"
        )
    if length == 0:
        raise InvalidTrialError(f"{name} has no batches", hint=f"check {name}.__len__")
    return int(length)


def batch_tuple(batch: Untyped) -> tuple[Untyped, ...]:
    """Return a batch of a Sequence as `(x, y)` or `(x, y, weights)`."""
    if batch is None:
        raise InvalidTrialError(
            "a Sequence returned None for a batch", hint="return (x, y) or (x, y, weights) from __getitem__"
        )
    if not isinstance(batch, (tuple, list)):
        batch = (batch,)
    return tuple(plain(part) for part in without_none(tuple(batch)))


def batch_spec(one: Untyped, other: Untyped) -> Untyped:
    """Return the spec of a batch; the number of records and sizes that differ are left open."""
    a, b = np.asarray(one), np.asarray(other)
    rest = [size if size == also else None for size, also in zip(a.shape[1:], b.shape[1:], strict=False)]
    return tf.TensorSpec([None, *rest], dtype=tf.as_dtype(a.dtype))


def capture() -> Untyped:
    return random.getstate(), np.random.get_state()  # noqa: NPY002  (user code draws from this generator)


def restore(state: Untyped) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002  (user code draws from this generator)


@contextmanager
def preserved(seed: int | None = None) -> Iterator[None]:
    """Restore the random states after the block; with `seed`, seed them inside it."""
    state = capture()
    if seed is not None:
        seed_python(seed)
    try:
        yield
    finally:
        restore(state)
