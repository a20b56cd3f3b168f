"""Search methods by their names in the config: our own, and those of installed packages.

Each is a function of the searcher's section of the config and of the trials to create. It returns a `Policy`,
or a whole `SearchMethod` if it replays in its own way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from detbuild.config import searcher as configs
from detbuild.config.section import UNITS
from detbuild.search.base import Search, Trials
from detbuild.search.brackets import asha_brackets, bracket_rungs
from detbuild.search.custom import CustomSearch
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

    Made = Callable[..., Policy | SearchMethod]  # of the method's own section, and of Trials


def _single(searcher: configs.Single, trials: Trials) -> Policy:
    return single_search(trials, length=searcher.max_length)


def _random(searcher: configs.Random, trials: Trials) -> Policy:
    return random_search(
        trials,
        max_trials=searcher.max_trials,
        max_concurrent_trials=searcher.max_concurrent_trials,
        length=searcher.max_length,
    )


def _grid(searcher: configs.Grid, trials: Trials) -> Policy:
    return grid_search(
        trials, max_concurrent_trials=searcher.max_concurrent_trials, length=searcher.max_length
    )


def _async_halving(searcher: configs.AsyncHalving, trials: Trials) -> Policy:
    from detbuild.search.asha import AsyncHalving, Halving, StoppingHalving

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
    return form(trials, halving)


def _adaptive_asha(searcher: configs.AdaptiveAsha, trials: Trials) -> Policy:
    from detbuild.search.asha import adaptive_asha

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
    return adaptive_asha(
        trials,
        brackets,
        length=length,
        unit=unit,
        divisor=searcher.divisor,
        stopping=_stops(searcher),
    )


def _sync_halving(searcher: configs.SyncHalving, trials: Trials) -> Policy:
    length = _max_length(searcher)
    stages = stages_for_budget(
        num_rungs=searcher.num_rungs,
        length=length.count,
        budget=searcher.budget.count,
        divisor=searcher.divisor,
    )
    return SyncHalving(trials, stages, length.unit)


def _adaptive(searcher: configs.Adaptive, trials: Trials) -> Policy:
    length = _max_length(searcher)
    chosen = sorted(searcher.bracket_rungs, reverse=True)
    return adaptive(
        trials,
        chosen or bracket_rungs(searcher.mode, searcher.max_rungs),
        length=length,
        budget=searcher.budget.count,
        divisor=searcher.divisor,
    )


def _adaptive_simple(searcher: configs.AdaptiveSimple, trials: Trials) -> Policy:
    return adaptive_simple(
        trials,
        bracket_rungs(searcher.mode, searcher.max_rungs),
        length=_max_length(searcher),
        max_trials=searcher.max_trials,
        divisor=searcher.divisor,
    )


def _pbt(searcher: configs.PopulationBased, trials: Trials) -> Policy:
    from detbuild.search.pbt import Pbt

    return Pbt(trials, searcher)


def _optuna(searcher: configs.Optuna, trials: Trials) -> SearchMethod:
    from detbuild.search.optuna import OptunaSearch

    return OptunaSearch(trials, searcher, trials.seed)


def _custom(config: ExperimentConfig, trials: Trials, context_dir: Path | None) -> SearchMethod:
    kind: DeviceKind = "cuda" if config.resources.slots_per_trial else "cpu"
    variables = (text.partition("=") for text in config.environment.environment_variables.of(kind))
    assert isinstance(config.searcher, configs.Custom)
    return CustomSearch(
        trials,
        config.searcher,
        trials.seed,
        context_dir=context_dir,
        variables={name: value for name, _, value in variables},
    )


METHODS: Final[Mapping[str, Made]] = {
    "single": _single,
    "random": _random,
    "grid": _grid,
    "async_halving": _async_halving,
    "adaptive_asha": _adaptive_asha,
    "sync_halving": _sync_halving,
    "adaptive": _adaptive,
    "adaptive_simple": _adaptive_simple,
    "pbt": _pbt,
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
    searcher = config.searcher
    trials = Trials(config.hyperparameters, config.reproducibility.experiment_seed or 0)
    if isinstance(searcher, configs.Custom):
        return _custom(config, trials, context_dir)
    made = METHODS.get(searcher.name) or cast("Made", configs.SEARCHERS.call(searcher.name))
    found = made(searcher, trials)
    if hasattr(found, "decide"):
        return cast("SearchMethod", found)
    return Search(found, sign=searcher.sign)


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
