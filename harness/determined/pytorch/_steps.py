"""The inner training loop; its overhead is paid in every batch.

Between two torch ops the processor's caches are cold, and a line of Python costs several times more than in a
loop of its own. So everything constant during training is computed once, and reports in quick succession are
batched: their metrics are kept and reported together a moment later.
"""

from __future__ import annotations

from functools import cached_property, partial
from itertools import chain, islice
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import InvalidTrialError
from determined._run.outcome import defined_at
from determined.pytorch._device import to_cpu, to_cpu_without_gpu, to_device
from determined.pytorch._distributed import averaging
from determined.pytorch._lr_scheduler import Pace
from determined.pytorch._metrics import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined.pytorch import _rng
    from determined.pytorch._parts import Parts

_MAX_REPORT_DELAY = 0.05  # seconds that a report may be deferred
_MEASURE_EVERY = 100  # batches between two measurements of the batch length


class Steps:
    """Trains the batches of one trial.

    Args:
        parts: the trial.
        watched: a callback receives the metrics of each batch.
        one_by_one: reports must not be deferred.

    Attributes:
        completed: batches, over the life of the trial.
        records: trained since this run began, by all processes.
        window: the metrics, one window for each report.
    """

    def __init__(self, parts: Parts, *, watched: bool, one_by_one: bool) -> None:
        self.completed = self.records = 0
        read_numbers = parts.context.device.type == "cpu" and not watched
        place = defined_at(parts.trial.train_batch)
        self.window = Window("train_batch", read_numbers=read_numbers, place=place)
        self._parts, self._context, self._hooks = parts, parts.context, parts.hooks
        self._clock = parts.context.clock
        self._clock.epoch_length = parts.loaders.training.epoch_length
        self._shared = parts.context.distributed.size > 1
        self._one_by_one = one_by_one or self._shared
        self._batches: Iterator[Any] = iter(())
        self._epoch, self._epoch_idx = range(0), 0  # the batches of the current epoch
        self._length, self._measure_at = 0, 0
        self._reports: Iterator[int] = iter(())
        self._report = 0  # the batch after which the next report is due; 0: none
        self._left = -inf  # when the loop last returned, for reports

    def begin(self, completed: int, data: _rng.State | None) -> None:
        """Prepare the training data from a batch on."""
        self.completed = self._measure_at = completed
        self._epoch = range(0)
        self._batches = self._parts.loaders.begin(completed, data)

    def close(self) -> None:
        """Stop loader workers now and in this thread, not in a garbage collection."""
        self._batches = iter(())

    def train(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        """Train to the next of `reports`, or past it if it may be deferred: see `determined._trial.loop.Trainable`.

        Raises:
            InvalidTrialError: the training data ended.
        """
        self._reports, self._report = reports, next(reports)
        continues = True
        while continues:
            done = self.completed
            if done not in self._epoch:
                self._epoch, self._epoch_idx = self._clock.epoch_of(done), self._clock.epochs(done)
            batches = self._begin_epoch() if done == self._epoch.start else self._batches
            continues = self._train_in_epoch(batches, should_stop)
            if self.completed == done:
                raise InvalidTrialError(
                    f"the training data ended after {done} batches, in the middle of an epoch",
                    hint="make the sampler yield the number of batches that its length states",
                )
            if self.completed == self._epoch.stop:
                _call(self._hooks.epoch_end, self._epoch_idx)
        self._left = perf_counter()

    def _begin_epoch(self) -> Iterator[Any]:
        """Call the epoch callbacks as in Determined: after the first batch is read, before it is trained."""
        first = list(islice(self._batches, 1))
        self._clock.batch_idx = self.completed
        _call(self._hooks.epoch_start, self._epoch_idx)
        return chain(first, self._batches)

    def _train_in_epoch(self, batches: Iterator[Any], should_stop: Callable[[], bool]) -> bool:
        """Train to the end of the epoch (the innermost loop); return False to leave training."""
        clock, add, train_batch = self._clock, self.window.add, self._parts.trial.train_batch
        prepare, after = self._around_batch
        first, epoch, continues = self.completed, self._epoch_idx, True
        measured, last = max(first, self._measure_at), self._report - 1
        if self._shared:
            self._average_at(first)
        for index, batch in zip(range(first, self._epoch.stop), batches, strict=False):
            clock.batch_idx = index
            if index == measured:
                self._measure(batch)
            add(train_batch(batch=prepare(batch), epoch_idx=epoch, batch_idx=index))
            for do in after:
                do(index)
            self.completed = index + 1
            stopped = should_stop()
            if index == last or stopped:
                continues = self._defer_report() and not stopped
                if not continues:
                    break
                last = self._report - 1
        self.records += (self.completed - first) * self._length
        return continues

    def _defer_report(self) -> bool:
        """Close the window; return False if its report is due at once or is the last one."""
        self.window.close(self.completed)
        if (
            self._one_by_one
            or perf_counter() - self._left >= _MAX_REPORT_DELAY
            or self._context.reducers.training
            or self._context.get_stop_requested()
        ):
            return False
        self._report = next(self._reports, 0)
        return self._report > 0

    def _measure(self, batch: Any) -> None:  # noqa: ANN401  (any batch)
        """Measure the records per batch over all processes; 0 if unknown."""
        self._measure_at = self.completed + _MEASURE_EVERY
        try:
            length = self._parts.trial.get_batch_length(batch)
        except InvalidTrialError:
            length = 0
        if not isinstance(length, int):
            raise InvalidTrialError(
                f"get_batch_length returned {length!r}", hint="return the number of records in the batch"
            )
        self._length = length * self._context.distributed.size

    @cached_property
    def _around_batch(self) -> tuple[Callable[[Any], Any], tuple[Callable[[int], object], ...]]:
        """The functions to run before and after each batch; resolved when training begins."""
        return self._preparation(), self._after_batch()

    def _preparation(self) -> Callable[[Any], Any]:
        if not self._context.experimental.auto_to_device:
            return lambda batch: batch
        device = self._context.device
        if device.type != "cpu":
            return partial(to_device, device=device)
        return to_cpu if torch.cuda.is_available() else to_cpu_without_gpu

    def _after_batch(self) -> tuple[Callable[[int], object], ...]:
        """Return the functions to run after each batch; none for most trials."""
        context = self._context
        after: list[Callable[[int], object]] = []
        if context.gradients.automatic:
            after.append(lambda _: context.gradients.end_batch())
        if context.lr_schedulers:
            pace = Pace(self._clock.epoch_length, context.gradients.aggregation.frequency)
            after.append(partial(self._step_schedulers, pace))
        if context.profiler is not None:
            profiler = context.profiler
            after.append(lambda _: profiler.step())
        if self._shared and context.gradients.aggregation.frequency > 1:
            after.append(lambda index: self._average_at(index + 1))
        return tuple(after)

    def _average_at(self, index: int) -> None:
        """Average gradients over processes only in the last batch of an aggregation."""
        averaging(self._context.models, on=(index + 1) % self._context.gradients.aggregation.frequency == 0)

    def _step_schedulers(self, pace: Pace, index: int) -> None:
        for one in self._context.lr_schedulers:
            for _ in range(pace.steps(one, index)):
                one.scheduler.step()


def _call(hooks: tuple[Callable[[int], object], ...], epoch: int) -> None:
    for hook in hooks:
        hook(epoch)
