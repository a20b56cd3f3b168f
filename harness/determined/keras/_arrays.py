"""Arrays as training data, with random access to batches: the order of an epoch depends only on its seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined.keras._feed import ENDLESS, distribute, plain, weighted, without_none
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from determined.keras._types import Untyped

_ENDLESS = 1 << 62  # epochs
_SEEDS = 1 << 31


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
        epochs = tf.data.Dataset.range(epoch, _ENDLESS).map(self._order).prefetch(1)
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
