"""Converts nested hyperparameters to a flat list of leaves, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Nested

if TYPE_CHECKING:
    from detbuild.config.hyperparameters import Hyperparameter, Path


def assembled(
    hyperparameters: Mapping[str, Hyperparameter], values: Mapping[Path, object], above: Path = ()
) -> dict[str, object]:
    """Build a trial's hyperparameters from the values of all leaves; empty maps are kept."""
    whole: dict[str, object] = {}
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            whole[name] = assembled(hyperparameter.root, values, path)
        else:
            whole[name] = values[path]
    return whole


def value_at(hparams: Mapping[str, object], path: Path) -> object:
    """Return the value of one leaf; raise KeyError if it does not exist."""
    value: object = hparams
    for name in path:
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[name]
    return value
