"""One trial, with its hyperparameters drawn once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.config.sampling import draws
from detbuild.search.method import CreateTrial, Decision, Finish, Observation
from detbuild.search.random import OneLeg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.hyperparameters import Hyperparameter
    from detbuild.search.base import Trials
    from determined._run_info import Length


def single_search(trials: Trials, *, length: Length | None) -> OneLeg:
    """A random search of one; it is not replaced when its hyperparameters are invalid."""
    return OneLeg(trials.new, max_trials=1, max_concurrent_trials=1, length=length)


@dataclass(frozen=True, slots=True)
class Single:
    hyperparameters: Mapping[str, Hyperparameter]
    seed: int

    def decide(self, trials: Sequence[Observation]) -> Sequence[Decision]:
        if not trials:
            first = next(draws(self.hyperparameters, self.seed))
            return (CreateTrial(trial_id=1, seed=first.trial_seed, hparams=first.hparams),)
        return (Finish(),) if all(trial.ended for trial in trials) else ()
