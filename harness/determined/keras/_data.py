"""Prepare the data of a trial by its kind; a `tf.data.Dataset` is resumed by its iterator's state."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._trial.state import derive
from determined.keras._feed import (
    ENDLESS,
    ArrayFeed,
    OneBatch,
    OneBatchSpec,
    SequenceAdapter,
    SequenceFeed,
    batches_of,
    distribute,
    is_arrays,
    plain,
    preserved,
    steps_of,
    weighted,
    without_none,
)
from determined.keras._tf import KERAS_3, keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from determined.keras._feed import Feed
    from determined.keras._tf import InputData, Untyped
    from determined.keras._trial import TFKerasTrialContext

_HINT = (
    "return (x, y), (x, y, weights), a keras.utils.Sequence or PyDataset, or a tf.data.Dataset from {method}"
)
_LOG = logging.getLogger(__name__)
_FILES = "determined-keras-iterator"
# Iterators that `fit` opens without reading them: before the first pass, and before each later one.
_UNREAD_FIRST = 0 if KERAS_3 else 1
_UNREAD_BETWEEN = 1 if KERAS_3 else 0
_SEEDS_OF_SHUFFLE = b"num_random_samples"  # in the file of an iterator whose shuffle has not ended
# TensorFlow's errors for an iterator whose state it cannot save.
_STATEFUL = (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError)
_DATASET_HINT = "check the dataset that build_training_data_loader returns"


def training_feed(data: InputData, context: TFKerasTrialContext, *, seed: int, strategy: Untyped) -> Feed:
    """Return the result of `build_training_data_loader` as an endless feed of batches."""
    fit = context.fit
    if isinstance(data, SequenceAdapter):
        fit, data = replace(fit, workers=data.workers, max_queue_size=data.max_queue_size), data.data
    if isinstance(data, keras.utils.Sequence):
        return SequenceFeed(data, fit, seed=derive(seed, "training"), strategy=strategy)
    if isinstance(data, tf.data.Dataset):
        return _DatasetFeed(
            data,
            strategy=strategy,
            epoch_length=context.configured_epoch_length,
            class_weight=fit.class_weight,
        )
    if is_arrays(data):
        return ArrayFeed(
            data,
            context.get_per_slot_batch_size(),
            seed=derive(seed, "training") if fit.shuffle else None,
            strategy=strategy,
            class_weight=fit.class_weight,
        )
    raise _unsupported(data, "build_training_data_loader")


def validation_arguments(
    data: InputData, context: TFKerasTrialContext, limit: int | None
) -> dict[str, Untyped]:
    """Return the arguments of `model.evaluate`.

    Args:
        data: the result of `build_validation_data_loader`.
        context: of the trial.
        limit: batches to read; None uses `validation_steps` of `configure_fit`, or reads all.
    """
    steps = limit or context.fit.validation_steps
    arguments: dict[str, Untyped] = {} if steps is None else {"steps": steps}
    if isinstance(data, SequenceAdapter):
        data = data.data
    if is_arrays(data):
        x, y, *weights = (plain(part) for part in without_none(data))
        if not all(map(len, tf.nest.flatten(x))):
            raise InvalidTrialError(
                "the validation data has no records", hint="check the arrays that the method returns"
            )
        sample_weight = {"sample_weight": weights[0]} if weights else {}
        return {"x": x, "y": y, "batch_size": context.get_global_batch_size(), **sample_weight, **arguments}
    if isinstance(data, tf.data.Dataset):
        _check_end(data, steps)
        return {"x": data, **arguments}
    if isinstance(data, keras.utils.Sequence):
        if steps is None:
            batches_of(data)
        return {"x": data, **arguments}
    raise _unsupported(data, "build_validation_data_loader")


def has_known_end(arguments: Mapping[str, Untyped]) -> bool:
    """Whether a validation with these arguments is known to end."""
    data = arguments["x"]
    return "steps" in arguments or not isinstance(data, tf.data.Dataset) or int(data.cardinality()) >= 0


def _check_end(dataset: Untyped, steps: int | None) -> None:
    batches = int(dataset.cardinality())
    if batches == 0:
        raise InvalidTrialError(
            "the dataset of build_validation_data_loader has no batches",
            hint="check its source; with drop_remainder it needs one full batch",
        )
    if batches == tf.data.INFINITE_CARDINALITY and steps is None:
        raise InvalidTrialError(
            "the dataset of build_validation_data_loader is endless",
            hint="remove `repeat()`, add `take(n)`, or call context.configure_fit(validation_steps=n)",
        )


def _unsupported(data: InputData, method: str) -> InvalidTrialError:
    return InvalidTrialError(
        f"{method} returned a {type(data).__module__}.{type(data).__name__}", hint=_HINT.format(method=method)
    )


class _DatasetFeed:
    """Reads a dataset repeatedly, with a new iterator for each pass, as `model.fit` does.

    The end of a pass is detected without running a step, because a step without a batch may still assign
    variables: from the cardinality if TensorFlow knows it, otherwise by reading each batch before its step.

    An iterator whose state cannot be saved (Python generators, stateful random operations, several devices)
    is restored by reading from the beginning again.
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
        batches = int(dataset.cardinality())
        if batches == 0:
            raise InvalidTrialError(
                "the dataset of build_training_data_loader has no batches",
                hint="check its source; with drop_remainder it needs one full batch",
            )
        weighed = weighted(dataset, class_weight)
        # Several devices need one batch each, so a pass must not end in the middle of a step.
        self._dataset = weighed.repeat() if self._replicas > 1 else weighed
        self._batches = int(self._dataset.cardinality())
        self._iterator: Untyped = None
        self._keepable = self._replicas == 1  # whether the iterator's state can be saved
        self._passes = 0  # completed
        self._pass_begin = 0  # number of the first batch of the current pass, if the length is known
        self._read = 0  # batches read in this run, if the length is unknown
        known = steps_of(batches, self._replicas) if batches > 0 else None
        self.epoch_length: int | None = epoch_length or known

    def begin(self, step: int, saved: Path | None) -> None:
        """Open the same number of iterators as `fit`: each draws one seed per shuffle of the dataset."""
        if saved is not None and (saved / f"{_FILES}.index").is_file() and self._restored(step, saved):
            return
        self._open(_UNREAD_FIRST + 1)
        self._keepable = self._is_keepable()
        self._passes = self._pass_begin = 0
        if step:
            _LOG.info("reading the training data again up to batch %d, where training continues", step)
            with preserved():
                for _ in range(step):
                    self._next()

    def reader(self, step: int) -> tuple[Untyped, int]:
        if self._batches < 0:
            return self._iterator, ENDLESS
        if step == self._pass_begin + self._batches:
            self._next_pass()
        return self._iterator, self._pass_begin + self._batches - step

    def stepping(self, train: Callable[[Untyped], Untyped]) -> Callable[[Untyped], Untyped]:
        if self._batches != tf.data.UNKNOWN_CARDINALITY:
            return train
        spec = OneBatchSpec(self._dataset.element_spec)
        return lambda _: train(OneBatch(self._next(), spec))

    def save(self, directory: Path) -> None:
        if not self._keepable:
            return
        try:
            self._write(directory)
        except _STATEFUL as error:  # a generator behind a shuffle is only opened by the first batch
            _log_once(str(error).partition("\n")[0])
            self._keepable = False
            for left in directory.glob(f"{_FILES}*"):
                left.unlink()

    def _write(self, directory: Path) -> None:
        passes = tf.Variable(self._passes, dtype=tf.int64)
        tf.train.Checkpoint(iterator=self._iterator, passes=passes).write(str(directory / _FILES))

    def _is_keepable(self) -> bool:
        """Whether the iterator's state can be saved; checked before a pass, because later it may be empty."""
        if self._replicas > 1:
            return False
        with TemporaryDirectory() as directory:
            try:
                self._write(Path(directory))
            except _STATEFUL as error:
                _log_once(str(error).partition("\n")[0])
                return False
        return True

    def spec(self) -> Untyped:
        return self._dataset.element_spec

    def _open(self, times: int) -> None:
        for _ in range(times):
            self._iterator = distribute(self._dataset, self._strategy)

    def _next_pass(self) -> None:
        self._passes += 1
        self._pass_begin += max(0, self._batches)
        self._open(_UNREAD_BETWEEN + 1)

    def _next(self) -> Untyped:
        """Read the next batch outside of any step."""
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._next_pass()
            batch = self._first_of_pass()
        self._read += 1
        return batch

    def _first_of_pass(self) -> Untyped:
        try:
            return next(self._iterator)
        except StopIteration as ended:
            raise InvalidTrialError(
                f"the training data ended after {self._read} batches and could not be restarted",
                hint=_DATASET_HINT + ", and that it can be read again" * (self._read > 0),
            ) from ended

    def _restored(self, step: int, saved: Path) -> bool:
        """Restore the iterator and the seeds of later ones; return False if that is not possible.

        Restoring draws a seed from a shuffle that had ended at the checkpoint, and none from a running one,
        whose seeds are restored.
        """
        self._passes = _saved_passes(saved)
        self._pass_begin = self._passes * max(0, self._batches)
        opened = _UNREAD_FIRST + self._passes * (_UNREAD_BETWEEN + 1)
        if not _takes_one_seed_a_pass(self._dataset):
            return False
        if step == self._pass_begin + self._batches:
            self._open(opened + 1)  # the saved one is exhausted
            return True
        if not _shuffles(self._dataset) or _shuffle_is_alive(saved):
            self._open(opened + 1)
        elif opened:
            self._open(opened)
        else:
            return False
        self._restore(saved)
        return True

    def _restore(self, saved: Path) -> None:
        passes = tf.Variable(0, dtype=tf.int64)
        try:
            state = tf.train.Checkpoint(iterator=self._iterator, passes=passes)
            state.read(str(saved / _FILES)).assert_consumed()
        except (tf.errors.OpError, AssertionError) as error:
            raise _other_data(error) from error


def _saved_passes(saved: Path) -> int:
    passes = tf.Variable(0, dtype=tf.int64)
    try:
        tf.train.Checkpoint(passes=passes).read(str(saved / _FILES)).expect_partial()
    except tf.errors.OpError as error:
        raise _other_data(error) from error
    return int(passes.numpy())


def _other_data(error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the training data differs from that of the checkpoint: {error}",
        hint="restore the code that wrote it (a copy is in its code/), or start a new experiment",
    )


def _inputs(dataset: Untyped) -> list[Untyped]:
    return list(dataset._inputs())  # noqa: SLF001  (TensorFlow has no public name for it)


def _is_shuffle(dataset: Untyped) -> bool:
    return "Shuffle" in type(dataset).__name__


def _shuffles(dataset: Untyped) -> int:
    return _is_shuffle(dataset) + sum(map(_shuffles, _inputs(dataset)))


def _takes_one_seed_a_pass(dataset: Untyped) -> bool:
    """Whether opening an iterator draws exactly the seeds of one pass: at most one shuffle, not repeated."""
    node, shuffles = dataset, _shuffles(dataset)
    while shuffles and not _is_shuffle(node):
        if "Repeat" in type(node).__name__ or len(_inputs(node)) != 1:
            return False
        (node,) = _inputs(node)
    return shuffles <= 1


def _shuffle_is_alive(saved: Path) -> bool:
    return any(_SEEDS_OF_SHUFFLE in path.read_bytes() for path in saved.glob(f"{_FILES}.data-*"))


@cache
def _log_once(why: str) -> None:
    _LOG.info("the position in the training data cannot be saved; a resumed run reads it again (%s)", why)
