"""One trial, with its hyperparameters drawn once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detbuild.config.hyperparameters import Hyperparameter
from detbuild.config.sampling import draws
from detbuild.search.method import CreateTrial, Decision, Finish, Observation


@dataclass(frozen=True, slots=True)
class Single:
    hyperparameters: Mapping[str, Hyperparameter]
    seed: int

    def decide(self, trials: Sequence[Observation]) -> Sequence[Decision]:
        if not trials:
            first = next(draws(self.hyperparameters, self.seed))
            return (CreateTrial(trial_id=1, seed=first.trial_seed, hparams=first.hparams),)
        return (Finish(),) if all(trial.ended for trial in trials) else ()
