"""When a trial pauses to report, validate and checkpoint, counted in batches."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length, RunInfo


@dataclass(frozen=True, slots=True)
class Period:
    """Due every `every` batches, and at given batches. Neither: never."""

    every: int = 0
    at: tuple[int, ...] = ()  # sorted

    def after(self, batch: int) -> int | None:
        """Return the first batch after `batch` at which it is due."""
        index = bisect_right(self.at, batch)
        given = self.at[index] if index < len(self.at) else None
        if not self.every:
            return given
        regular = (batch // self.every + 1) * self.every
        return regular if given is None else min(regular, given)

    def between(self, begin: int, end: int) -> Iterable[int]:
        """Return the batches after `begin` and before `end` at which it is due."""
        if self.at:
            return self._one_by_one(begin, end)
        return range((begin // self.every + 1) * self.every, end, self.every) if self.every else ()

    def _one_by_one(self, begin: int, end: int) -> Iterator[int]:
        batch = self.after(begin)
        while batch is not None and batch < end:
            yield batch
            batch = self.after(batch)

    def due(self, batch: int) -> bool:
        return (self.every > 0 and batch % self.every == 0) or batch in self.at

    def joined(self, at: Iterable[int]) -> Period:
        """Return a period that is also due at these batches."""
        return Period(self.every, tuple(sorted({*self.at, *at})))


NEVER = Period()


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    max_length: int  # in batches
    report: Period = NEVER
    validation: Period = NEVER
    checkpoint: Period = NEVER
    initial_validation: bool = False

    def reports(self, begin: int, end: int) -> Iterator[int]:
        """Return the batches after `begin` at which training metrics are reported, up to `end`."""
        return chain(self.report.between(begin, end), (end,))


@dataclass(frozen=True, slots=True)
class Stop:
    """A pause of training after `batch` batches, to validate or checkpoint."""

    batch: int
    validate: bool
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class Units:
    """Units of length, in batches. None: unknown for this trial."""

    epoch: int | None = None  # batches in an epoch
    batch: int | None = None  # records in a batch, over all slots

    def batches(self, length: Length, field: str) -> int:
        """Convert a length of the config.

        Args:
            length: what to convert.
            field: the config's name of it, for the error.
        """
        if length.unit == "batches":
            return length.count
        if length.unit == "epochs":
            return length.count * self._known(self.epoch, "the training data has no length", field)
        records = self._known(self.batch, "the hyperparameter global_batch_size is not set", field)
        return max(1, length.count // records) if length.count else 0

    @staticmethod
    def _known(value: int | None, why: str, field: str) -> int:
        if value is None:
            raise InvalidTrialError(
                f"{field} cannot be converted to batches: {why}", hint=f"give {field} in batches"
            )
        return value


def stops(schedule: Schedule, *, completed: int = 0, validated: int | None = None) -> Iterator[Stop]:
    """Yield the remaining stops; the last one validates and checkpoints.

    Args:
        schedule: when to report, validate and checkpoint.
        completed: batches trained so far.
        validated: batches trained before the newest validation. One that was due at `completed`, but skipped
            because the run was asked to stop, comes first.
    """
    if validated != completed and _validate(schedule, completed):
        yield Stop(completed, validate=True, checkpoint=completed > 0)
    batch = completed
    while batch < schedule.max_length:
        batch = _next(schedule, batch)
        last = batch == schedule.max_length
        yield Stop(batch, _validate(schedule, batch), checkpoint=last or schedule.checkpoint.due(batch))


def _validate(schedule: Schedule, batch: int) -> bool:
    if batch == 0:
        return schedule.initial_validation
    return batch >= schedule.max_length or schedule.validation.due(batch)


def _next(schedule: Schedule, batch: int) -> int:
    nearest = schedule.max_length
    for period in (schedule.validation, schedule.checkpoint):
        stop = period.after(batch)
        if stop is not None and stop < nearest:
            nearest = stop
    return nearest


def configured(config: Mapping[str, object], max_length: Length, units: Units) -> Schedule:
    """Return the schedule of an experiment config."""

    def period(field: str) -> Period:
        length = parse_length(config.get(field), field)
        return Period(units.batches(length, field)) if length else NEVER

    unit = config.get("scheduling_unit")
    return Schedule(
        max_length=units.batches(max_length, "searcher.max_length"),
        report=Period(unit if isinstance(unit, int) and unit > 0 else 100),
        validation=period("min_validation_period"),
        checkpoint=period("min_checkpoint_period"),
        initial_validation=bool(config.get("perform_initial_validation", False)),
    )


def milestones(info: RunInfo, units: Units) -> tuple[int, ...]:
    """Return the batches after which the search needs a validation while the run continues."""
    if info.max_length is None:
        return ()
    unit = info.max_length.unit
    return tuple(units.batches(Length(unit, count), "searcher.max_length") for count in info.milestones)


def parse_length(value: object, field: str) -> Length | None:
    """Parse `{batches: 100}` or 100; None and zero mean never."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Length("batches", value) if value > 0 else None
    if isinstance(value, Length):
        return value if value.count > 0 else None
    if isinstance(value, Mapping):
        given = {
            unit: value[unit] for unit in ("batches", "records", "epochs") if value.get(unit) is not None
        }
        if "unit" in value:
            given[str(value["unit"])] = value.get("count")
        if len(given) == 1 and isinstance(count := next(iter(given.values())), int):
            return Length(next(iter(given)), count) if count > 0 else None
    elif value is None:
        return None
    raise InvalidTrialError(f"{field} is not a valid length: {value!r}", hint="write it as {batches: 100}")


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
