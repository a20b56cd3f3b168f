"""Several searches in one experiment; each receives the events of its own trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.decisions import Create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.decisions import Action, TrialEnd
    from detbuild.search.base import Policy


class Tournament:
    """Brackets that draw from one generator, in the order in which they begin."""

    share = 0.0

    def __init__(self, brackets: Sequence[Policy]) -> None:
        self.brackets = brackets
        self.bracket_of: dict[int, int] = {}

    @property
    def needs_every_validation(self) -> bool:
        return any(bracket.needs_every_validation for bracket in self.brackets)

    @property
    def progress(self) -> float:
        return sum(bracket.progress for bracket in self.brackets) / len(self.brackets)

    def begin(self) -> list[Action]:
        begun = (self._marked(index, bracket.begin()) for index, bracket in enumerate(self.brackets))
        return [action for actions in begun for action in actions]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        index = self.bracket_of[trial_id]
        return self._marked(index, self.brackets[index].validated(trial_id, time, cost))

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        index = self.bracket_of[trial_id]
        return self._marked(index, self.brackets[index].ended(trial_id, reason))

    def _marked(self, index: int, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, Create):
                self.bracket_of[action.trial_id] = index
        return actions
