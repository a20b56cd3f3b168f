"""Search methods by their names in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from detbuild.config import searcher as configs
from detbuild.config.section import UNITS
from detbuild.search.asha import AsyncHalving, Halving, StoppingHalving, adaptive_asha
from detbuild.search.base import Search, Trials
from detbuild.search.brackets import asha_brackets, bracket_rungs
from detbuild.search.custom import CustomSearch
from detbuild.search.optuna import OptunaSearch
from detbuild.search.pbt import Pbt
from detbuild.search.simple import grid_search, random_search, single_search
from detbuild.search.sync_halving import SyncHalving, adaptive, adaptive_simple, stages_for_budget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from detbuild.config.environment import DeviceKind
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.base import Policy
    from detbuild.search.method import SearchMethod
    from determined._contract.run_info import Length

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class _Given:
    """Inputs of a search."""

    config: ExperimentConfig
    context_dir: Path | None  # from which the hook of a custom search is imported

    @property
    def seed(self) -> int:
        return self.config.reproducibility.experiment_seed or 0

    @property
    def trials(self) -> Trials:
        return Trials(self.config.hyperparameters, self.seed)

    def searcher(self, kind: type[S]) -> S:
        assert isinstance(self.config.searcher, kind)
        return self.config.searcher

    def search(self, policy: Policy) -> Search:
        return Search(policy, smaller_is_better=self.config.searcher.smaller_is_better)


def _single(given: _Given) -> SearchMethod:
    return given.search(single_search(given.trials, length=given.config.searcher.max_length))


def _random(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.Random)
    policy = random_search(
        given.trials,
        max_trials=searcher.max_trials,
        max_concurrent_trials=searcher.max_concurrent_trials,
        length=searcher.max_length,
    )
    return given.search(policy)


def _grid(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.Grid)
    policy = grid_search(
        given.trials, max_concurrent_trials=searcher.max_concurrent_trials, length=searcher.max_length
    )
    return given.search(policy)


def _async_halving(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.AsyncHalving)
    length, unit = _top(searcher)
    form = StoppingHalving if _stops(searcher) else AsyncHalving
    halving = Halving(
        num_rungs=searcher.num_rungs,
        length=length,
        unit=unit,
        divisor=searcher.divisor,
        max_trials=searcher.max_trials,
        max_concurrent_trials=searcher.max_concurrent_trials,
    )
    return given.search(form(given.trials, halving))


def _adaptive_asha(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.AdaptiveAsha)
    length, unit = _top(searcher)
    brackets = asha_brackets(
        mode=searcher.mode,
        given=searcher.bracket_rungs,
        max_rungs=searcher.max_rungs,
        length=length,
        divisor=searcher.divisor,
        max_trials=searcher.max_trials,
        max_concurrent_trials=searcher.max_concurrent_trials,
    )
    policy = adaptive_asha(
        given.trials,
        brackets,
        length=length,
        unit=unit,
        divisor=searcher.divisor,
        stopping=_stops(searcher),
    )
    return given.search(policy)


def _sync_halving(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.SyncHalving)
    length = _max_length(searcher)
    stages = stages_for_budget(
        num_rungs=searcher.num_rungs,
        length=length.count,
        budget=searcher.budget.count,
        divisor=searcher.divisor,
    )
    return given.search(SyncHalving(given.trials, stages, length.unit))


def _adaptive(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.Adaptive)
    length = _max_length(searcher)
    chosen = sorted(searcher.bracket_rungs, reverse=True)
    policy = adaptive(
        given.trials,
        chosen or bracket_rungs(searcher.mode, searcher.max_rungs),
        length=length,
        budget=searcher.budget.count,
        divisor=searcher.divisor,
    )
    return given.search(policy)


def _adaptive_simple(given: _Given) -> SearchMethod:
    searcher = given.searcher(configs.AdaptiveSimple)
    policy = adaptive_simple(
        given.trials,
        bracket_rungs(searcher.mode, searcher.max_rungs),
        length=_max_length(searcher),
        max_trials=searcher.max_trials,
        divisor=searcher.divisor,
    )
    return given.search(policy)


def _pbt(given: _Given) -> SearchMethod:
    return given.search(Pbt(given.trials, given.searcher(configs.PopulationBased)))


def _custom(given: _Given) -> SearchMethod:
    kind: DeviceKind = "cuda" if given.config.resources.slots_per_trial else "cpu"
    variables = (text.partition("=") for text in given.config.environment.environment_variables.of(kind))
    return CustomSearch(
        given.trials,
        given.searcher(configs.Custom),
        given.seed,
        context_dir=given.context_dir,
        variables={name: value for name, _, value in variables},
    )


def _optuna(given: _Given) -> SearchMethod:
    return OptunaSearch(given.trials, given.searcher(configs.Optuna), given.seed)


METHODS: Final[Mapping[str, Callable[[_Given], SearchMethod]]] = {
    "single": _single,
    "random": _random,
    "grid": _grid,
    "async_halving": _async_halving,
    "adaptive_asha": _adaptive_asha,
    "sync_halving": _sync_halving,
    "adaptive": _adaptive,
    "adaptive_simple": _adaptive_simple,
    "pbt": _pbt,
    "custom": _custom,
    "optuna": _optuna,
}


def search_method(config: ExperimentConfig, context_dir: Path | None = None) -> SearchMethod:
    """Create the search of an experiment.

    Args:
        config: complete, with its seed.
        context_dir: from which the hook of a custom search is imported.

    Raises:
        ConfigError: A setting or package that the method needs is missing.
    """
    return METHODS[config.searcher.name](_Given(config, context_dir))


def time_metric(config: ExperimentConfig) -> str:
    """Return the unit of `Validated.time`: `batches`, `records`, `epochs`, or a validation metric."""
    searcher = config.searcher
    if isinstance(searcher, configs.PopulationBased):
        return searcher.length_per_round.unit
    named: str | None = getattr(searcher, "time_metric", None)
    return named or (searcher.max_length.unit if searcher.max_length else UNITS[0])


def _stops(searcher: configs.AsyncHalving | configs.AdaptiveAsha) -> bool:
    """Whether ASHA has its stopping form; always with `max_time`, as in Determined since 0.38."""
    return searcher.stop_once or searcher.max_length is None or searcher.max_time is not None


def _top(searcher: configs.AsyncHalving | configs.AdaptiveAsha) -> tuple[int, str]:
    """Return the length of the top rung, and its unit."""
    if searcher.max_time is not None and searcher.time_metric is not None:
        return searcher.max_time, searcher.time_metric
    assert searcher.max_length is not None  # checked by the config
    return searcher.max_length.count, searcher.max_length.unit


def _max_length(searcher: configs.SyncHalving | configs.Adaptive | configs.AdaptiveSimple) -> Length:
    assert searcher.max_length is not None  # checked by the config
    return searcher.max_length
