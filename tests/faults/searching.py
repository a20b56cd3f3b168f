"""Small searches, each with one way of its own to use the contract; the real ones have tests of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.errors import SearchError
from detbuild.search.method import Began, Close, Create, Finish, Stop, Train, TrialEnded, Validated
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.method import Action, SearchEvent


def made(trial_id: int, *, parent: int | None = None) -> Create:
    """A trial whose metrics are its own."""
    hparams = {"start": 1.0 + trial_id / 10, "global_batch_size": 8}
    return Create(trial_id=trial_id, request_id=f"r{trial_id}", seed=trial_id, hparams=hparams, parent=parent)


def batches(count: int) -> Length:
    return Length("batches", count)


class Told:
    """Keeps what it was told, and decides the same when it is told the same."""

    needs_every_validation = False
    progress = share = 0.0

    def __init__(self) -> None:
        self.events: list[SearchEvent] = []

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        self.events.append(event)
        return tuple(self.next(event))

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        decided = self.decide(event)
        if decided != tuple(actions):
            raise SearchError(f"it would decide {decided} now, and not {actions}")

    def next(self, event: SearchEvent) -> Sequence[Action]:
        raise NotImplementedError


class Random(Told):
    """`trials` trials of one segment, `at_once` of them at a time."""

    def __init__(self, trials: int, at_once: int, length: int = 6) -> None:
        super().__init__()
        self.trials, self.at_once, self.length = trials, at_once, length
        self.count = self.ended = 0

    def next(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Began):
            return [action for _ in range(self.at_once) for action in self.new()]
        if isinstance(event, Validated):
            return ()
        self.ended += 1
        if self.ended == self.trials:
            return (Finish(),)
        return self.new() if self.count < self.trials else ()

    def new(self) -> Sequence[Action]:
        self.count += 1
        segment = Train(trial_id=self.count, length=batches(self.length))
        return made(self.count), segment, Close(trial_id=self.count)


class Halving(Told):
    """Trains all trials a little, the better half of them twice as long, and then the best one to the end."""

    def __init__(self, trials: int = 4, lengths: Sequence[int] = (2, 4, 6)) -> None:
        super().__init__()
        self.trials, self.lengths = trials, lengths
        self.rung, self.results, self.going = 0, dict[int, float](), set(range(1, trials + 1))
        self.ended = 0

    def next(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Began):
            first = batches(self.lengths[0])
            return [a for i in sorted(self.going) for a in (made(i), Train(trial_id=i, length=first))]
        if isinstance(event, Validated):
            self.results[event.trial_id] = event.metric if event.metric is not None else 0.0
        elif isinstance(event, TrialEnded):
            self.ended += 1
            self.going.discard(event.trial_id)
            self.results.pop(event.trial_id, None)
        if self.ended == self.trials:
            return (Finish(),)
        return self.promoted() if self.going and self.results.keys() >= self.going else ()

    def promoted(self) -> Sequence[Action]:
        ranked = sorted(self.results, key=lambda trial_id: -self.results[trial_id])
        self.rung, self.results = self.rung + 1, {}
        kept = ranked[: max(1, len(ranked) // 2)] if self.rung < len(self.lengths) else []
        closed: list[Action] = [Close(trial_id=trial_id) for trial_id in ranked if trial_id not in kept]
        self.going = set(kept)
        return closed + [Train(trial_id=i, length=batches(self.lengths[self.rung])) for i in kept]


class Watching(Told):
    """Watches trials on their way to the top, and stops all but the first at their first milestone."""

    needs_every_validation = True

    def __init__(self, trials: int = 3, top: int = 6) -> None:
        super().__init__()
        self.trials, self.top, self.ended = trials, top, 0

    def next(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Began):
            segment = {i: Train(trial_id=i, length=batches(self.top), milestones=(2, 4)) for i in self.ids}
            return [action for i in self.ids for action in (made(i), segment[i])]
        if isinstance(event, Validated):
            stopped = event.trial_id > 1 or event.time >= self.top
            return (Stop(trial_id=event.trial_id),) if stopped else ()
        self.ended += 1
        return (Finish(),) if self.ended == self.trials else ()

    @property
    def ids(self) -> range:
        return range(1, self.trials + 1)


class Heirs(Told):
    """A second trial starts from where the first one came to."""

    def next(self, event: SearchEvent) -> Sequence[Action]:
        match event:
            case Began():
                return made(1), Train(trial_id=1, length=batches(4)), Close(trial_id=1)
            case Validated(trial_id=1):
                return made(2, parent=1), Train(trial_id=2, length=batches(6)), Close(trial_id=2)
            case TrialEnded(trial_id=2):
                return (Finish(),)
        return ()
