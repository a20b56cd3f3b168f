"""Samples the trials of an experiment from its seed, exactly as Determined does."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Categorical, Const, Double, Hyperparameter, Int, Log, Nested
from detbuild.config.randomstate import RandomState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampled trial. `request_id` is a UUID; `trial_seed` is below 2**31."""

    hparams: dict[str, object]
    request_id: str
    trial_seed: int


def draws(hyperparameters: Mapping[str, Hyperparameter], seed: int) -> Iterator[Draw]:
    """Yield the trials of an experiment in order of creation."""
    random = RandomState(seed)
    while True:
        yield Draw(draw(hyperparameters, random), *identity(random))


def draw(hyperparameters: Mapping[str, Hyperparameter], random: RandomState) -> dict[str, object]:
    """Sample all hyperparameters, sorted by name at each level."""
    return {name: draw_one(hyperparameters[name], random) for name in sorted(hyperparameters)}


def draw_one(hyperparameter: Hyperparameter, random: RandomState) -> object:
    """Sample one value; a constant consumes no random numbers."""
    match hyperparameter:
        case Const(val=value):
            return value
        case Int(minval=low, maxval=high):
            return random.randint(low, high + 1)
        case Double(minval=low, maxval=high):
            return random.uniform(low, high)
        case Log(minval=low, maxval=high, base=base):
            return base ** random.uniform(low, high)
        case Categorical(vals=values):
            return values[random.randint(0, len(values))]
        case Nested(root=below):
            return draw(below, random)


def identity(random: RandomState) -> tuple[str, int]:
    """Sample the request ID and seed of a trial, after its hyperparameters."""
    request_id = uuid.UUID(bytes=random.bytes(16), version=4)
    return str(request_id), random.randint(0, 1 << 31)


def sample(hyperparameters: Mapping[str, Hyperparameter], seed: int) -> dict[str, object]:
    """Return the hyperparameters of the first trial."""
    return next(draws(hyperparameters, seed)).hparams


def trial_identity(hyperparameters: Mapping[str, Hyperparameter], seed: int) -> tuple[str, int]:
    """Return the request ID and seed of the first trial."""
    first = next(draws(hyperparameters, seed))
    return first.request_id, first.trial_seed
