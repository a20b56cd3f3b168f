"""`context.experimental`: the data layer of Determined 0.12, as far as it means something on one host."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined.keras._types import Untyped

    Maker = Callable[..., Untyped]


class Experimental:
    """Data sets are made anew in every run: nothing is cached, names and versions have no effect."""

    def cache_train_dataset(
        self,
        dataset_id: str,  # noqa: ARG002  (Determined's own signature, as all of this)
        dataset_version: str,  # noqa: ARG002
        shuffle: bool = False,  # noqa: FBT001, FBT002
        skip_shuffle_at_epoch_end: bool = False,  # noqa: FBT001, FBT002
    ) -> Callable[[Maker], Maker]:
        """Decorate the function that makes the records of the training data, one by one.

        Args:
            dataset_id: has no effect.
            dataset_version: has no effect.
            shuffle: give all records in a random order.
            skip_shuffle_at_epoch_end: in the same one in every epoch.
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
        """Decorate the function that makes the records of the validation data."""
        return lambda make: _arranged(make, lambda dataset: dataset)


def _arranged(make: Maker, arrange: Callable[[Untyped], Untyped]) -> Maker:
    @wraps(make)
    def made(*arguments: Untyped, **keywords: Untyped) -> Untyped:
        dataset = make(*arguments, **keywords)
        if not isinstance(dataset, tf.data.Dataset):
            raise InvalidTrialError(
                f"{make.__name__} returned a {type(dataset).__name__}, not a tf.data.Dataset",
                hint="return the data set itself from the function under context.experimental.cache_...",
            )
        return arrange(dataset)

    return made


def _length(dataset: Untyped) -> int:
    """Records; those of a data set that does not say are counted."""
    known = int(dataset.cardinality())
    if known < 0:
        known = int(dataset.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1))
    return max(1, known)
