"""What every search method must do, as tests for pytest; our own and those of packages run the same."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, ClassVar, Final

from detbuild.config.parse import config_from_mapping
from detbuild.search.method import Began, Create, Finish, TrialEnd, TrialEnded, Validated, from_json, to_json
from detbuild.search.preview import Simulator, preview, simulate
from detbuild.search.registry import search_method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import SearchMethod
    from detbuild.search.preview import ResultOf, Simulation

SPACE: Final[Mapping[str, object]] = {
    "depth": {"type": "int", "minval": 1, "maxval": 9, "count": 9},
    "lr": {"type": "log", "base": 10, "minval": -5, "maxval": -1, "count": 5},
    "optimizer": {"type": "categorical", "vals": ["adam", "sgd"]},
}
_UNKNOWN: Final = 999_999  # not a trial
_FAILURES: Final = tuple(end for end in TrialEnd if end is not TrialEnd.COMPLETED)
_WORLDS: Final = 20  # random orders of events


class SearchMethodContract:
    """Derive `Test...` from it, and set `searcher` to the section of a config.

    The search should create several trials, since much can only be seen then.
    """

    searcher: ClassVar[Mapping[str, object]]
    hyperparameters: ClassVar[Mapping[str, object]] = SPACE

    def config(self, seed: int = 0) -> ExperimentConfig:
        return config_from_mapping(
            {
                "entrypoint": ["python3", "train.py"],
                "searcher": {"metric": "loss", **self.searcher},
                "hyperparameters": self.hyperparameters,
                "reproducibility": {"experiment_seed": seed},
            }
        )

    def search(self, seed: int = 0) -> SearchMethod:
        return search_method(self.config(seed))

    def run(self, seed: int = 0, random: Random | None = None) -> Simulation:
        """Simulate the search; with `random`, trials end in any order, and some fail."""
        return simulate(self.search(seed), _any_result(random) if random else _length, random=random)

    def test_the_config_is_complete(self) -> None:
        config = self.config()
        assert config_from_mapping(config.resolved()) == config

    def test_it_creates_trials_when_it_begins_and_only_once(self) -> None:
        search = self.search()
        assert any(isinstance(action, Create) for action in search.decide(Began()))
        assert list(search.decide(Began())) == []

    def test_unknown_and_ended_trials_change_nothing(self) -> None:
        search = self.search()
        search.decide(Began())
        for trial_id, reason in ((_UNKNOWN, TrialEnd.ERRORED), (1, TrialEnd.INVALID_HP)):
            if trial_id == 1:
                search.decide(TrialEnded(trial_id=1, reason=TrialEnd.ERRORED))
            assert list(search.decide(Validated(trial_id=trial_id, time=1, metric=1.0))) == []
            assert list(search.decide(TrialEnded(trial_id=trial_id, reason=reason))) == []

    def test_it_finishes_once_when_every_trial_has_ended(self) -> None:
        for seed in range(_WORLDS):
            simulation = self.run(random=Random(seed))
            history = simulation.history
            assert [event for event, actions in history if Finish() in actions] == [history[-1][0]]
            ended = [event.trial_id for event, _ in history if isinstance(event, TrialEnded)]
            assert sorted(ended) == [*simulation.creates]

    def test_a_search_that_has_finished_decides_nothing_more(self) -> None:
        simulator = Simulator(self.search(), _length)
        last, _ = simulator.run().history[-1]
        assert list(simulator.method.decide(last)) == []
        assert simulator.method.progress == 1

    def test_trials_are_numbered_from_1_and_trained_upwards(self) -> None:
        simulation = self.run()
        assert [*simulation.creates] == [*range(1, len(simulation.creates) + 1)]
        assert all(points == sorted(set(points)) for points in simulation.trained.values())

    def test_actions_concern_open_trials_only(self) -> None:
        for seed in range(_WORLDS):
            ended: set[int] = set()
            for event, actions in self.run(random=Random(seed)).history:
                ended |= {event.trial_id} if isinstance(event, TrialEnded) else set()
                assert ended.isdisjoint(getattr(action, "trial_id", 0) for action in actions)

    def test_a_seed_gives_the_same_trials_again_and_another_seed_others(self) -> None:
        first, again, other = ([*self.run(seed).creates.values()] for seed in (1, 1, 2))
        assert first == again
        assert {create.request_id for create in first}.isdisjoint(create.request_id for create in other)

    def test_equal_events_give_equal_actions(self) -> None:
        """A controller that restarts replays the events; another answer ends the experiment."""
        history = self.run(random=Random(3)).history
        again = self.search()
        assert [list(again.decide(event)) for event, _ in history] == [
            list(actions) for _, actions in history
        ]

    def test_a_restart_after_any_event_continues(self) -> None:
        simulator = Simulator(self.search(), _any_result(Random(4)), random=Random(4))
        history = simulator.run().history
        again = self.search()
        for event, actions in history:
            again.replay(_journaled(event), [_journaled(action) for action in actions])  # type: ignore[arg-type,misc]
        assert again.progress == simulator.method.progress

    def test_progress_never_falls_and_ends_at_1(self) -> None:
        search, seen = self.search(), [0.0]
        for event, _ in self.run(random=Random(5)).history:
            search.decide(event)
            seen.append(search.progress)
        assert seen == sorted(seen)
        assert seen[-1] == 1
        assert 0 <= search.share <= 1

    def test_it_can_be_previewed(self) -> None:
        assert preview(self.config()).trials >= 1


def _journaled(value: object) -> object:
    """Return an event or action as the journal gives it back."""
    return from_json(to_json(value))  # type: ignore[arg-type]


def _length(create: Create, length: int) -> float:
    """Return a result that depends on the trial and on how long it trained."""
    return create.trial_id + 1 / length


def _any_result(random: Random) -> ResultOf:
    def result(_create: Create, _length: int) -> float | TrialEnd | None:
        chance = random.random()
        if chance < 0.1:  # noqa: PLR2004  (one in ten fails)
            return random.choice(_FAILURES)
        return None if chance < 0.15 else random.choice([0.0, 1.0, random.random()])  # noqa: PLR2004

    return result
