"""The search methods by their name in the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError
from detbuild.search.single import Single

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import OneTrial


def _single(config: ExperimentConfig) -> OneTrial:
    return Single(config.hyperparameters, config.reproducibility.experiment_seed or 0)


METHODS: Final[Mapping[str, Callable[[ExperimentConfig], OneTrial]]] = {"single": _single}


def search_method(config: ExperimentConfig) -> OneTrial:
    """Raise ConfigError for a method that is not here."""
    name = config.searcher.name
    if name not in METHODS:
        raise ConfigError(f"searcher.name: {name} cannot run", mend=f"use one of {', '.join(METHODS)}")
    return METHODS[name](config)
