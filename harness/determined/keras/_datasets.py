"""A `tf.data.Dataset` as training data: its iterator's own state is kept in checkpoints."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from determined._errors import CheckpointError, InvalidTrialError
from determined.keras import _random
from determined.keras._feed import deal, steps_of, weighted
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined.keras._types import Untyped

_LOG = logging.getLogger(__name__)
_FILES = "determined-keras-iterator"


class DatasetFeed:
    """Reads a dataset again and again, in a new iterator for each pass, as `model.fit` does.

    An iterator whose state cannot be kept (a Python generator, random operations with a state of their own,
    several devices) is brought back to its place by reading from the beginning again.
    """

    def __init__(
        self,
        dataset: Untyped,
        *,
        strategy: Untyped,
        epoch_length: int | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._strategy = strategy
        self._replicas: int = strategy.num_replicas_in_sync
        weighed = weighted(dataset, class_weight)
        # Several devices need a batch each, so a pass of them must not end in the middle of a step.
        self._dataset = weighed.repeat() if self._replicas > 1 else weighed
        self._iterator: Untyped = None
        self._passes = 0  # that have ended
        batches = int(dataset.cardinality())
        if batches == 0:
            raise InvalidTrialError(
                "the dataset of build_training_data_loader has no batches",
                mend="check what it reads, and drop_remainder with data smaller than one batch",
            )
        known = steps_of(batches, self._replicas) if batches > 0 else None
        self.epoch_length: int | None = epoch_length or known

    def begin(self, step: int, saved: Path | None) -> Untyped:
        self._open()
        if saved is not None and (saved / f"{_FILES}.index").is_file():
            self._restore(saved)
            return self._iterator
        self._open()  # see _restore
        if step:
            _LOG.info("the training data is read again up to batch %d, where training goes on", step)
            with _random.kept():
                for _ in range(step):
                    self._skip()
        return self._iterator

    def again(self) -> Untyped:
        self._passes += 1
        self._open()
        return self._iterator

    def save(self, directory: Path) -> None:
        if self._replicas > 1:
            return
        passes = tf.Variable(self._passes, dtype=tf.int64)
        try:
            tf.train.Checkpoint(iterator=self._iterator, passes=passes).write(str(directory / _FILES))
        except tf.errors.OpError as error:
            for path in directory.glob(f"{_FILES}*"):
                path.unlink()
            _say_once(str(error).partition("\n")[0])

    def spec(self) -> Untyped:
        return self._dataset.element_spec

    def _open(self) -> None:
        self._iterator = deal(self._dataset, self._strategy)

    def _restore(self, saved: Path) -> None:
        """Each iterator takes one seed from each shuffle of the dataset, and so does restoring one.

        Where the shuffle had ended before the checkpoint was written, that is not undone: so a run makes one
        iterator more than it needs at its beginning, and a resumed run does not.
        """
        passes = tf.Variable(0, dtype=tf.int64)
        try:
            tf.train.Checkpoint(passes=passes).read(str(saved / _FILES)).expect_partial()
            self._passes = int(passes.numpy())
            for _ in range(self._passes):
                self._open()
            state = tf.train.Checkpoint(iterator=self._iterator, passes=passes)
            state.read(str(saved / _FILES)).assert_consumed()
        except (tf.errors.OpError, AssertionError) as error:
            raise CheckpointError(
                f"the training data is not the one that the checkpoint was written with: {error}",
                mend="restore the code that wrote it, of which code/ in it is a copy, or start afresh",
            ) from error

    def _skip(self) -> None:
        try:
            next(self._iterator)
        except StopIteration:
            next(self.again())


@cache
def _say_once(why: str) -> None:
    _LOG.info("where reading the training data stands cannot be kept; a resumed run reads it again (%s)", why)
