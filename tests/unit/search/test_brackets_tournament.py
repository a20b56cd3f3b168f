from __future__ import annotations

from detbuild.search.brackets import Tournament
from detbuild.search.method import Action, Create, TrialEnd


class Bracket:
    """Remembers what it is told; creates the trials it was made with."""

    share = 0.0

    def __init__(self, *trials: int, progress: float, needs_every_validation: bool = False) -> None:
        self.trials, self.progress, self.needs_every_validation = trials, progress, needs_every_validation
        self.told: list[object] = []

    def begin(self) -> list[Action]:
        return [Create(trial_id=trial, request_id="", seed=0) for trial in self.trials]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        self.told.append((trial_id, time, cost))
        return [Create(trial_id=trial_id + 10, request_id="", seed=0)]

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        self.told.append((trial_id, reason))
        return []


def test_each_bracket_is_told_of_the_trials_that_it_created() -> None:
    one, two = Bracket(1, 2, progress=0.5), Bracket(3, progress=1.0, needs_every_validation=True)
    tournament = Tournament([one, two])
    assert [action.trial_id for action in tournament.begin() if isinstance(action, Create)] == [1, 2, 3]
    tournament.validated(3, 5, 0.5)
    tournament.ended(13, TrialEnd.ERRORED)
    tournament.validated(2, 4, 0.25)
    assert one.told == [(2, 4, 0.25)]
    assert two.told == [(3, 5, 0.5), (13, TrialEnd.ERRORED)]
    assert tournament.bracket_of == {1: 0, 2: 0, 3: 1, 13: 1, 12: 0}
    assert tournament.progress == 0.75
    assert tournament.needs_every_validation
