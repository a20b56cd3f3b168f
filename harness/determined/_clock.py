"""The current batch: the one number that the loop writes for every batch."""

from __future__ import annotations

import sys

from determined._errors import InvalidTrialError


class Clock:
    """The current batch, also in epochs.

    Attributes:
        batch_idx: counted from 0 over the life of the trial; None before the first batch.
        epoch_length: batches in an epoch; None when the training data has no length: one endless epoch.
    """

    __slots__ = ("batch_idx", "epoch_length")

    def __init__(self) -> None:
        self.batch_idx: int | None = None
        self.epoch_length: int | None = None

    @property
    def batch(self) -> int:
        """Return the current batch.

        Raises:
            InvalidTrialError: training has not begun.
        """
        if self.batch_idx is None:
            raise InvalidTrialError(
                "the trial asked for the current batch or epoch before training began",
                hint="read it in train_batch, not in __init__ or while loading data",
            )
        return self.batch_idx

    @property
    def epoch(self) -> int:
        return self.epochs(self.batch)

    @property
    def is_epoch_start(self) -> bool:
        return self.batch % self.epoch_length == 0 if self.epoch_length else self.batch == 0

    @property
    def is_epoch_end(self) -> bool:
        return self.epoch_length is not None and (self.batch + 1) % self.epoch_length == 0

    def epoch_of(self, batch: int) -> range:
        """Return the batches of the epoch that contains a batch."""
        if not self.epoch_length:
            return range(sys.maxsize)
        first = batch - batch % self.epoch_length
        return range(first, first + self.epoch_length)

    def epochs(self, batches: int) -> int:
        """Return the epochs that are complete after that many batches."""
        return batches // self.epoch_length if self.epoch_length else 0
