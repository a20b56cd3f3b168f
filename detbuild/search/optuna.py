"""Optuna samplers: TPE, CMA-ES or Gaussian processes choose hyperparameters; trials are trained once."""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from detbuild.config.hyperparameters import Categorical, Const, Int, Log, leaves
from detbuild.errors import ConfigError
from detbuild.search.base import WORST, Search, assembled, cost, value_at
from detbuild.search.method import Create, TrialEnded, Validated, check_same, equal
from detbuild.search.simple import SingleSegment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from detbuild.config.hyperparameters import Hyperparameter, Leaf, Path
    from detbuild.config.searcher import Optuna as OptunaConfig
    from detbuild.search.base import Trials
    from detbuild.search.method import Action, SearchEvent

_NEEDS: Final = {"tpe": ("optuna",), "cmaes": ("optuna", "cmaes"), "gp": ("optuna", "scipy", "torch")}


class OptunaSearch(Search):
    """A search by a sampler; deterministic for one version of Optuna.

    With another version, a restarted search adopts the recorded trials and continues with the suggestions of
    the new version. Raises ConfigError if Optuna is not installed.
    """

    def __init__(self, trials: Trials, config: OptunaConfig, seed: int) -> None:
        self._study = _StudyInMemory(trials.hyperparameters, _sampler_of(config, seed))
        self._trials = trials
        policy = SingleSegment(
            self._ask,
            max_trials=config.max_trials,
            max_concurrent_trials=config.max_concurrent_trials,
            length=config.max_length,
            replace=trials.may_replace,
        )
        super().__init__(policy, sign=config.sign)

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Validated):
            self._study.tell(event.trial_id, cost(event.metric, self._sign))
        elif isinstance(event, TrialEnded):
            self._study.tell(event.trial_id, WORST)
        return super().decide(event)

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Decide again, but with the recorded hyperparameters where Optuna now chooses others."""
        recorded = {action.trial_id: action.hparams for action in actions if isinstance(action, Create)}
        decided: list[Action] = []
        for action in self.decide(event):
            if isinstance(action, Create) and action.trial_id in recorded:
                hparams = recorded[action.trial_id]
                if not equal(action.hparams, hparams):
                    self._study.adopt(action.trial_id, hparams)
                decided.append(replace(action, hparams=hparams))
            else:
                decided.append(action)
        check_same(decided, actions, event)

    def _ask(self) -> Create:
        return self._trials.new(self._study.ask(self._trials.count + 1))


class _StudyInMemory:
    """An Optuna study with detbuild's trial IDs. Log-scale ranges are searched by exponent."""

    def __init__(self, hyperparameters: Mapping[str, Hyperparameter], sampler: BaseSampler) -> None:
        import optuna  # noqa: PLC0415  (200 ms, and an extra)

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._hyperparameters = hyperparameters
        self._leaves = dict(leaves(hyperparameters))
        found = {_name(path): _distribution(leaf) for path, leaf in self._leaves.items()}
        self._distributions = {name: one for name, one in found.items() if one is not None}
        self._study: Study = optuna.create_study(sampler=sampler)
        self._running: dict[int, int] = {}  # trial ID -> Optuna's number

    def ask(self, trial_id: int) -> dict[str, object]:
        """Return the hyperparameters of a new trial."""
        trial = self._study.ask(self._distributions)
        self._running[trial_id] = trial.number
        chosen = {
            path: leaf.val if isinstance(leaf, Const) else _chosen(leaf, trial.params[_name(path)])
            for path, leaf in self._leaves.items()
        }
        return assembled(self._hyperparameters, chosen)

    def tell(self, trial_id: int, value: float) -> None:
        """Report a trial's result, once; WORST is a failure, which samplers ignore."""
        from optuna.trial import TrialState  # noqa: PLC0415  (as above)

        number = self._running.pop(trial_id, None)
        if number is None:
            return
        if value == WORST:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def adopt(self, trial_id: int, hparams: Mapping[str, object]) -> None:
        """Replace the hyperparameters that `ask` returned."""
        from optuna.trial import TrialState, create_trial  # noqa: PLC0415  (as above)

        self.tell(trial_id, WORST)
        params = {
            _name(path): _param(leaf, value_at(hparams, path))
            for path, leaf in self._leaves.items()
            if not isinstance(leaf, Const)
        }
        self._study.add_trial(
            create_trial(state=TrialState.RUNNING, params=params, distributions=self._distributions)
        )
        self._running[trial_id] = len(self._study.get_trials(deepcopy=False)) - 1


def _sampler_of(config: OptunaConfig, seed: int) -> BaseSampler:
    """Create the sampler; raise ConfigError if its packages are not installed."""
    try:
        for module in _NEEDS[config.sampler]:
            importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"searcher.sampler: {config.sampler} needs the Python package {error.name}",
            hint="install it here: pip install 'detbuild[optuna]'",
        ) from error
    from optuna.samplers import CmaEsSampler, GPSampler, TPESampler  # noqa: PLC0415  (as above)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental samplers: replay() handles changes
        if config.sampler == "tpe":  # constant_liar: concurrent trials should differ
            return TPESampler(n_startup_trials=config.startup_trials or 10, seed=seed, constant_liar=True)
        if config.sampler == "gp":
            return GPSampler(n_startup_trials=config.startup_trials or 10, seed=seed)
        return CmaEsSampler(
            n_startup_trials=config.startup_trials or 1, seed=seed, warn_independent_sampling=False
        )


def _name(path: Path) -> str:
    return ".".join(path)


def _distribution(leaf: Leaf) -> BaseDistribution | None:
    """Return Optuna's distribution; None for a constant."""
    from optuna import distributions  # noqa: PLC0415  (as above)

    if isinstance(leaf, Const):
        return None
    if isinstance(leaf, Categorical):  # by index: a choice may be a list or a map
        return distributions.CategoricalDistribution(range(len(leaf.vals)))
    if isinstance(leaf, Int):
        return distributions.IntDistribution(leaf.minval, leaf.maxval)
    return distributions.FloatDistribution(leaf.minval, leaf.maxval)


def _chosen(leaf: Leaf, param: object) -> object:
    """Convert Optuna's parameter to a value."""
    match leaf, param:
        case Categorical(vals=values), int():
            return values[param]
        case Log(base=base), float():
            return base**param
    return param


def _param(leaf: Leaf, value: object) -> object:
    """Convert a value to Optuna's parameter."""
    match leaf, value:
        case Categorical(vals=values), _:
            return next(index for index, choice in enumerate(values) if choice == value)
        case Log(minval=low, maxval=high, base=base), float():
            return min(max(math.log(value, base), low), high)
    return value
