"""The search methods by their name in the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError
from detbuild.search.single import Single

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import SearchMethod


def _single(config: ExperimentConfig) -> SearchMethod:
    seed = config.reproducibility.experiment_seed or 0
    return Single(config.hyperparameters, seed, config.searcher.max_length)


METHODS: Final[Mapping[str, Callable[[ExperimentConfig], SearchMethod]]] = {"single": _single}


def search_method(config: ExperimentConfig) -> SearchMethod:
    """Raise ConfigError for a method that is not here."""
    name = config.searcher.name
    if name not in METHODS:
        raise ConfigError(f"searcher.name: {name} cannot run", mend=f"use one of {', '.join(METHODS)}")
    return METHODS[name](config)
