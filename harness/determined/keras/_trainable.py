"""The Keras side of the training loop: batches, running metrics, validation, checkpoints."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from determined._contract.errors import InvalidTrialError
from determined._trial.schedule import Clock
from determined._trial.state import TrialState, write_code, write_numbers
from determined._trial.validation import LengthWatch, log_skipped
from determined.keras import _checkpoint
from determined.keras._data import has_known_end
from determined.keras._feed import OneBatch, OneBatchSpec
from determined.keras._hooks import validation_names
from determined.keras._preflight import Parts, preflight
from determined.keras._tf import KERAS_VERSION, keras, numbers, tf
from determined.keras._trial import create_variables, train_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from determined._trial.loop import Metrics, Position
    from determined.keras._tf import Untyped


class KerasTrainable:
    """Implements `determined._trial.loop.Trainable`."""

    def __init__(self, parts: Parts) -> None:
        self.steps_completed = self._first = 0
        self.context, self._parts, self._hooks = parts.context, parts, parts.hooks
        self._model = parts.context.model
        self._clock = Clock()
        self._clock.epoch_length = parts.feed.epoch_length
        self._logs: Untyped = None
        self._due_reports: list[int] = []  # the report that is due
        self._watch = LengthWatch()
        whole = (
            type(self._model).evaluate is keras.Model.evaluate and parts.strategy.num_replicas_in_sync == 1
        )
        self._ends_unknown = whole and not has_known_end(parts.validation)
        self._train = parts.feed.stepping(train_function(self._model))

    @property
    def records_trained(self) -> int:
        return (self.steps_completed - self._first) * (self.context.batch_size or 0)

    @property
    def stop_requested(self) -> bool:
        return self.context.get_stop_requested()

    @property
    def epoch_length(self) -> int | None:
        return self._clock.epoch_length

    def begin(self) -> None:
        """Prepare a new trial for its first batch."""
        if self._parts.strategy.num_replicas_in_sync > 1:
            self._create_variables()
        self._parts.feed.begin(0, None)
        self._begin_callbacks()

    def restore(self, directory: Path, position: Position) -> None:
        """Continue from a checkpoint."""
        self._create_variables()
        self.steps_completed = self._first = position.steps_completed
        self._parts.feed.begin(position.steps_completed, directory)
        self._begin_callbacks()
        _checkpoint.read(directory, self.context, self._hooks)
        _checkpoint.read_random_states(directory)

    def take_weights(self, directory: Path) -> None:
        """Start a new trial with the weights of another trial's checkpoint."""
        self._create_variables()
        self.begin()
        _checkpoint.read_weights(directory, self.context)

    def train_until(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        batch = next(reports)
        self._hooks.call("on_train_workload_begin", self.steps_completed, batch - self.steps_completed, {})
        length = self._clock.epoch_length
        stopped = False
        while self.steps_completed < batch and not stopped:
            epoch, end = self._clock.epochs(self.steps_completed), batch
            if length:
                end = (epoch + 1) * length
                if self.steps_completed == epoch * length:
                    self._hooks.all.on_epoch_begin(epoch)
            stopped = self._train_batches(min(batch, end), should_stop)
            if length and self.steps_completed == end:
                self._hooks.all.on_epoch_end(epoch, {})
        self._due_reports = [self.steps_completed]

    def _train_batches(self, end: int, should_stop: Callable[[], bool]) -> bool:
        """Train up to batch `end`, or until a stop is requested; return whether it was."""
        while self.steps_completed < end:
            iterator, count = self._parts.feed.reader(self.steps_completed)
            if self._train_on(iterator, min(end, self.steps_completed + count), should_stop):
                return True
        return False

    def _train_on(self, iterator: Untyped, end: int, should_stop: Callable[[], bool]) -> bool:
        """Train on batches of one iterator: the innermost loop, whose overhead is paid in every batch."""
        train, model = self._train, self._model
        before, after = self._hooks.train_batch_begin, self._hooks.train_batch_end
        for index in range(self.steps_completed, end):
            if before is not None:
                before(index)
            try:
                self._logs = train(iterator)
            except (StopIteration, tf.errors.OpError) as error:
                self._raise_user_error(error)
                raise
            self.steps_completed = index + 1
            if after is not None:
                after(index, self._logs)
            if should_stop() or model.stop_training:
                return True
        return False

    def _raise_user_error(self, error: Exception) -> None:
        """Raise the original error of user code, of which TensorFlow only keeps the text."""
        if self._parts.feed.failure is not None:
            raise self._parts.feed.failure from error
        if isinstance(error, (StopIteration, tf.errors.OutOfRangeError)):
            raise InvalidTrialError(
                f"the training data ended after {self.steps_completed} batches, before its stated length",
                hint="check the dataset that build_training_data_loader returns",
            ) from error

    def reduce(self) -> list[tuple[int, Metrics]]:
        due_reports, self._due_reports = self._due_reports, []
        if not due_reports:
            return []
        if not isinstance(self._logs, dict):
            raise InvalidTrialError(
                f"the model's train_step returned a {type(self._logs).__name__}, not metrics by name",
                hint='return a dict from train_step, e.g. {"loss": loss}',
            )
        return [(steps, self._counted(numbers(self._logs))) for steps in due_reports]

    def reported(self, steps_completed: int, metrics: Metrics) -> None:
        self._hooks.call("on_train_workload_end", steps_completed, dict(metrics))
        self._model.reset_metrics()

    def preflight(self) -> Metrics | None:
        if self.steps_completed:
            log_skipped("training has begun and may be reading ahead")
            return None
        return preflight(self._parts)

    def evaluate(self) -> Metrics:
        with warnings.catch_warnings():  # Keras warns about data of unknown length
            warnings.filterwarnings("ignore", "Your input ran out of data")
            metrics = self._evaluate_all() if self._ends_unknown else self._evaluate(self._parts.validation)
        self._model.reset_metrics()
        return self._counted(numbers(validation_names(dict(metrics))))

    def _evaluate(self, arguments: Mapping[str, Untyped]) -> Mapping[str, Untyped]:
        found: Mapping[str, Untyped] = self._model.evaluate(
            **arguments, verbose=0, callbacks=[self._hooks.in_test], return_dict=True
        )
        return found

    def _evaluate_all(self) -> Mapping[str, Untyped]:
        """Validate like `model.evaluate`, but without its extra step at the end of data of unknown length."""
        dataset = self._parts.validation["x"]
        spec, hooks, logs = OneBatchSpec(dataset.element_spec), self._hooks.in_test.test_list(), {}
        self._watch.begin(self.steps_completed)
        self._model.make_test_function()
        self._model.reset_metrics()
        hooks.on_test_begin()
        for number, batch in enumerate(dataset):
            hooks.on_test_batch_begin(number)
            logs = self._model.test_function(OneBatch(batch, spec))
            hooks.on_test_batch_end(number, logs)
            self._watch.batch()
        found = {name: np.asarray(value) for name, value in logs.items()}
        hooks.on_test_end(found)
        return found

    def prepare_saving(self) -> None:
        """Do nothing: checkpoints are written synchronously."""

    def save(
        self,
        directory: Path,
        position: Position,
        *,
        in_background: bool = False,  # noqa: ARG002  (never in the background)
        hooks: bool = True,
    ) -> None:
        _checkpoint.write(directory, self.context, self._hooks, ask=hooks)
        self._parts.feed.save(directory)
        write_numbers(directory, self._state(position))
        write_code(directory, self._parts.info, type(self._parts.trial), trial_type="TFKerasTrial")
        if hooks:
            self._hooks.call("on_checkpoint_end", str(directory))
            self._hooks.call("on_checkpoint_write_end", directory)

    def saved(self, uuid: str) -> None:
        self._hooks.call("on_checkpoint_upload_end", uuid)

    def metadata(self) -> Mapping[str, object]:
        return {"framework": f"tensorflow-{tf.__version__}", "format": f"keras-{KERAS_VERSION}"}

    def end(self) -> None:
        """Call the end hooks after the last checkpoint."""
        self._hooks.all.on_train_end({})

    def _create_variables(self) -> None:
        create_variables(self.context, self._parts.feed.spec(), self._parts.strategy)

    def _begin_callbacks(self) -> None:
        """Call `on_train_begin`, which resets Keras' callbacks, before their states are restored."""
        self._model.stop_training = False
        self._hooks.all.on_train_begin({})
        self._model.reset_metrics()

    def _state(self, position: Position) -> TrialState:
        return TrialState(
            trial_id=self._parts.info.trial_id,
            steps_completed=position.steps_completed,
            epochs_completed=self._clock.epochs(position.steps_completed),
            validated=position.validated,
            data_seed=self._parts.data_seed,
        )

    def _counted(self, metrics: dict[str, object]) -> dict[str, object]:
        steps = self.steps_completed
        return {"batches": steps, "epochs": self._clock.epochs(steps), **metrics}
