"""A `tf.data.Dataset` as training data: its iterator's own state is kept in checkpoints."""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from itertools import islice
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
    """Reads a dataset again and again.

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
        self._dataset = weighted(dataset.repeat(), class_weight)
        self._iterator: Untyped = None
        batches = int(dataset.cardinality())
        if batches == 0:
            raise InvalidTrialError(
                "the dataset of build_training_data_loader has no batches",
                mend="check what it reads, and drop_remainder with data smaller than one batch",
            )
        known = steps_of(batches, self._replicas) if batches > 0 else None
        self.epoch_length: int | None = epoch_length or known

    def begin(self, step: int, saved: Path | None) -> Untyped:
        self._iterator = deal(self._dataset, self._strategy)
        if saved is not None and (saved / f"{_FILES}.index").is_file():
            self._restore(saved)
        elif step:
            _LOG.info("the training data is read again up to batch %d, where training goes on", step)
            with _random.kept():
                deque(islice(self._iterator, step), maxlen=0)
        return self._iterator

    def save(self, directory: Path) -> None:
        if self._replicas > 1:
            return
        try:
            tf.train.Checkpoint(iterator=self._iterator).write(str(directory / _FILES))
        except tf.errors.OpError as error:
            for path in directory.glob(f"{_FILES}*"):
                path.unlink()
            _say_once(str(error).partition("\n")[0])

    def spec(self) -> Untyped:
        return self._dataset.element_spec

    def _restore(self, saved: Path) -> None:
        try:
            tf.train.Checkpoint(iterator=self._iterator).read(str(saved / _FILES)).assert_consumed()
        except (tf.errors.OpError, AssertionError) as error:
            raise CheckpointError(
                f"the training data is not the one that the checkpoint was written with: {error}",
                mend="restore the code that wrote it, of which code/ in it is a copy, or start afresh",
            ) from error


@cache
def _say_once(why: str) -> None:
    _LOG.info("where reading the training data stands cannot be kept; a resumed run reads it again (%s)", why)
