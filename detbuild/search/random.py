"""Random search, and the policy it shares with `single`, `grid` and `optuna`: each trial is trained once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.decisions import Close, Train, TrialEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.decisions import Action, Create
    from detbuild.search.base import Trials
    from determined._run_info import Length


class SingleSegment:
    """Trials that are trained once, to the full length, at most `max_concurrent_trials` at a time.

    Args:
        make: creates the next trial.
        max_trials: number of trials.
        max_concurrent_trials: 0 for no limit.
        length: None lets the trial's own code decide when to end.
        replace: whether to replace a trial with invalid hyperparameters; called for each.
    """

    needs_every_validation = False

    def __init__(
        self,
        make: Callable[[], Create],
        *,
        max_trials: int,
        max_concurrent_trials: int,
        length: Length | None,
        replace: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make, self._replace, self.length = make, replace, length
        self.max_trials, self._concurrent = max_trials, max_concurrent_trials or max_trials
        self._made = self._done = 0

    @property
    def progress(self) -> float:
        return self._done / self.max_trials

    @property
    def share(self) -> float:
        return 1 / self.max_trials

    def begin(self) -> list[Action]:
        return [action for _ in range(min(self.max_trials, self._concurrent)) for action in self._next()]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:  # noqa: ARG002
        return []

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:  # noqa: ARG002
        if reason is TrialEnd.INVALID_HP and self._replace():
            self._made -= 1
        else:
            self._done += 1
        return self._next() if self._made < self.max_trials else []

    def _next(self) -> list[Action]:
        self._made += 1
        create = self._make()
        trial_id = create.trial_id
        return [create, Train(trial_id=trial_id, length=self.length), Close(trial_id=trial_id)]


def random_search(
    trials: Trials, *, max_trials: int, max_concurrent_trials: int, length: Length | None
) -> SingleSegment:
    """Create a trial whenever one ends, up to `max_trials`; invalid ones are replaced and not counted."""
    return SingleSegment(
        trials.new,
        max_trials=max_trials,
        max_concurrent_trials=max_concurrent_trials,
        length=length,
        replace=trials.may_replace,
    )
