"""A Sequence or PyDataset as training data, with random access to batches."""

from __future__ import annotations

import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from determined._contract.errors import InvalidTrialError
from determined._trial.state import derive
from determined.keras import _random
from determined.keras._feed import (
    ENDLESS,
    distribute,
    plain,
    steps_of,
    weighted,
    without_none,
    without_read_ahead,
)
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from determined.keras._context import Fit
    from determined.keras._types import Untyped


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
            weighted(without_read_ahead(batches), self._fit.class_weight), self._strategy
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
            with _random.preserved(derive(self._seed, "pass", self._begun)):
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
            with _random.preserved():
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
