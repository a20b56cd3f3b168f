"""One trial, with its hyperparameters drawn once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.config.sampling import draws
from detbuild.decisions import Began, Close, Create, Finish, Train, TrialEnded
from detbuild.errors import SearchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.hyperparameters import Hyperparameter
    from detbuild.decisions import Action, SearchEvent
    from determined._run_info import Length


class Single:
    watches = False

    def __init__(
        self, hyperparameters: Mapping[str, Hyperparameter], seed: int, length: Length | None
    ) -> None:
        self._trial = next(draws(hyperparameters, seed))
        self._length = length
        self.progress = 0.0

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Began):
            trial = self._trial
            create = Create(
                trial_id=1, request_id=trial.request_id, seed=trial.trial_seed, hparams=trial.hparams
            )
            return create, Train(trial_id=1, length=self._length), Close(trial_id=1)
        if isinstance(event, TrialEnded):
            self.progress = 1.0
            return (Finish(),)
        return ()

    def recall(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        if tuple(self.decide(event)) != tuple(actions):
            raise SearchError("the search would decide otherwise now")
