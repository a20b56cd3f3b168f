"""Searches for the tests of this folder, made of configs as users write them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from detbuild.config.parse import config_from_mapping
from detbuild.search.preview import simulate
from detbuild.search.registry import search_method

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import SearchMethod
    from detbuild.search.preview import ResultOf, Simulation

SPACE = {
    "cat": {"type": "categorical", "vals": [0, 1, 2, 3, 4, 5, 6]},
    "const": "fixed",
    "double": {"type": "double", "minval": 0, "maxval": 100},
    "int": {"type": "int", "minval": 0, "maxval": 100},
    "log": {"type": "log", "base": 10, "minval": -2, "maxval": 2},
}


def config_of(
    name: str, *, seed: int = 0, hyperparameters: object = None, **searcher: object
) -> ExperimentConfig:
    """A script's experiment: its lengths may be absent."""
    return config_from_mapping(
        {
            "entrypoint": ["python", "train.py"],
            "searcher": {"name": name, "metric": "loss", **searcher},
            "hyperparameters": SPACE if hyperparameters is None else hyperparameters,
            "reproducibility": {"experiment_seed": seed},
        }
    )


def search_of(name: str, **settings: object) -> SearchMethod:
    return search_method(config_of(name, **settings))  # type: ignore[arg-type]


def run(result_of: ResultOf, name: str, *, random: Random | None = None, **settings: object) -> Simulation:
    return simulate(search_of(name, **settings), result_of, random=random)


def equal_results(_create: object, _length: int) -> float:
    return 1.0


def by_trial(values: Sequence[float | None]) -> Callable[..., float | None]:
    """Trial n always reports the n-th value."""
    return lambda create, _length: values[create.trial_id - 1]


def shapes(simulation: Simulation) -> Counter[tuple[int, ...]]:
    """How many trials validated at which lengths."""
    return Counter(tuple(points) for points in simulation.trained.values())


def rungs(simulation: Simulation) -> list[int]:
    """How often each trial validated."""
    return [len(points) for points in simulation.trained.values()]
