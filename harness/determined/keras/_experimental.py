"""`context.experimental`: the data layer of Determined 0.12, without its cache."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined.keras._types import Untyped

    Maker = Callable[..., Untyped]


class Experimental:
    """Decorators for data sets; they are rebuilt in every run, and nothing is cached."""

    def cache_train_dataset(
        self,
        dataset_id: str,  # noqa: ARG002  (Determined's own signature, as all of this)
        dataset_version: str,  # noqa: ARG002
        shuffle: bool = False,  # noqa: FBT001, FBT002
        skip_shuffle_at_epoch_end: bool = False,  # noqa: FBT001, FBT002
    ) -> Callable[[Maker], Maker]:
        """Decorate the function that returns the training data, record by record.

        Args:
            dataset_id: has no effect.
            dataset_version: has no effect.
            shuffle: shuffle all records.
            skip_shuffle_at_epoch_end: use the same order in every epoch.
        """

        def arrange(dataset: Untyped) -> Untyped:
            if not shuffle:
                return dataset
            return dataset.shuffle(_length(dataset), reshuffle_each_iteration=not skip_shuffle_at_epoch_end)

        return lambda make: _arranged(make, arrange)

    def cache_validation_dataset(
        self,
        dataset_id: str,  # noqa: ARG002  (as above)
        dataset_version: str,  # noqa: ARG002
        shuffle: bool = False,  # noqa: ARG002, FBT001, FBT002  (a validation is the same in any order)
    ) -> Callable[[Maker], Maker]:
        """Decorate the function that returns the validation data, record by record."""
        return lambda make: _arranged(make, lambda dataset: dataset)


def _arranged(make: Maker, arrange: Callable[[Untyped], Untyped]) -> Maker:
    @wraps(make)
    def made(*arguments: Untyped, **keywords: Untyped) -> Untyped:
        dataset = make(*arguments, **keywords)
        if not isinstance(dataset, tf.data.Dataset):
            raise InvalidTrialError(
                f"{make.__name__} returned a {type(dataset).__name__}, not a tf.data.Dataset",
                hint="return a tf.data.Dataset from the decorated function",
            )
        return arrange(dataset)

    return made


def _length(dataset: Untyped) -> int:
    """Return the number of records; count them if TensorFlow does not know it."""
    known = int(dataset.cardinality())
    if known < 0:
        known = int(dataset.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1))
    return max(1, known)
