"""Nested hyperparameters as a flat list of leaves, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Categorical, Const, Double, Int, Log, Nested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.hyperparameters import Hyperparameter

Path = tuple[str, ...]
Leaf = Const | Categorical | Int | Double | Log


def leaves(hyperparameters: Mapping[str, Hyperparameter], above: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """In the order of the names; maps are entered where their name stands."""
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            yield from leaves(hyperparameter.root, path)
        else:
            yield path, hyperparameter


def assembled(
    hyperparameters: Mapping[str, Hyperparameter], values: Mapping[Path, object], above: Path = ()
) -> dict[str, object]:
    """The hyperparameters of a trial, of the values of all leaves; an empty map stays one."""
    whole: dict[str, object] = {}
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            whole[name] = assembled(hyperparameter.root, values, path)
        else:
            whole[name] = values[path]
    return whole


def value_at(hparams: Mapping[str, object], path: Path) -> object:
    """The value of one leaf. Raises KeyError when it is not there."""
    value: object = hparams
    for name in path:
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[name]
    return value
