"""Hyperparameters: constants, ranges and choices, nested to any depth, and the sampling of trials.

Trials are those that Determined draws from the same seed. It uses NumPy's legacy RandomState, which is here
without NumPy: MT19937, with draws in the same order.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, RootModel, Strict, Tag, model_validator

from detbuild.config.section import (
    TAG,
    Clause,
    Integer,
    Positive,
    SchemaForm,
    Section,
    discriminator,
    on_field,
    require,
    when,
    wrong,
)

Path = tuple[str, ...]
_WORDS: Final = 624
_MASK32: Final = 0xFFFF_FFFF


class Const(Section):
    type: Literal["const"] = "const"
    """A constant."""
    val: JsonValue
    """The value, of any type."""


class _Range(Section):
    minval: float
    """Lower end."""
    maxval: float
    """Upper end."""
    count: Positive | None = None
    """Number of grid points."""

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.minval < self.maxval:
            raise wrong(f"must be above minval, {self.minval:g}, not {self.maxval:g}", at=("maxval",))
        return self


class Int(_Range):
    """Uniform over whole numbers, both ends inclusive."""

    type: Literal["int"] = "int"
    """A whole number, uniform from `minval` to `maxval`."""
    minval: Integer
    """Smallest value."""
    maxval: Integer
    """Largest value, inclusive."""


class Double(_Range):
    """Uniform over floating-point numbers."""

    type: Literal["double"] = "double"
    """A number, uniform between `minval` and `maxval`."""


class Log(_Range):
    """`base` to the power of a uniform exponent between `minval` and `maxval`."""

    type: Literal["log"] = "log"
    """`base` to the power of a uniform number between `minval` and `maxval`: -4 with base 10 means
    0.0001."""
    base: Annotated[float, Field(gt=0)]
    """Base of the power."""

    @model_validator(mode="after")
    def _in_range(self) -> Log:
        culprit = "minval" if self.base < 1 else "maxval"
        try:
            _ = self.base ** (self.minval if culprit == "minval" else self.maxval)
        except OverflowError:
            what = f"base ** {culprit} is out of range for a double"
            raise wrong(what, at=(culprit,), hint="give an exponent: -4 means 0.0001") from None
        return self


class Categorical(Section):
    type: Literal["categorical"] = "categorical"
    """One of several values, each equally likely."""
    vals: Annotated[tuple[JsonValue, ...], Strict(strict=False), Field(min_length=1)]
    """The values, of any type."""


class Nested(RootModel[Mapping[str, "Hyperparameter"]]):
    """A nested map, without `type`; each of its leaves is drawn independently."""

    model_config = ConfigDict(strict=True, frozen=True, defer_build=True)


_KINDS: Final[dict[str, type[Section]]] = {
    "const": Const,
    "int": Int,
    "double": Double,
    "log": Log,
    "categorical": Categorical,
}


def _spelled_out(value: object) -> object:
    """Expand a bare value to a constant without `type`, and drop nulls of optional keys in a typed map."""
    if isinstance(value, (Section, Nested)):
        return value
    if not isinstance(value, dict):
        return Const.model_construct(None, val=cast("JsonValue", value))
    kind = value.get("type")
    fields = _KINDS[kind].model_fields if isinstance(kind, str) and kind in _KINDS else {}
    may_lack = fields.keys() - {"type", "val"}
    return {key: item for key, item in value.items() if item is not None or key not in may_lack}


Hyperparameter = Annotated[
    Annotated[Const, Tag(TAG + "Const")]
    | Annotated[Int, Tag(TAG + "Int")]
    | Annotated[Double, Tag(TAG + "Double")]
    | Annotated[Log, Tag(TAG + "Log")]
    | Annotated[Categorical, Tag(TAG + "Categorical")]
    | Annotated[Nested, Tag(TAG + "Nested")],
    discriminator("type", _KINDS, Nested),
    BeforeValidator(_spelled_out),
    SchemaForm(lambda of_map: when({"type": "object"}, of_map)),
]


def grid_point(ref: str) -> Clause:
    """Build the schema at `ref`: a hyperparameter of a grid search, whose ranges need `count`."""
    ranges = [kind for kind, section in _KINDS.items() if "count" in section.model_fields]
    typed = when(on_field("type", {"enum": ranges}), require("count"))
    nested = {"type": "object", "additionalProperties": {"$ref": ref}}
    return when({"type": "object"}, {"if": {"required": ["type"]}, "then": typed, "else": nested})


Leaf = Const | Categorical | Int | Double | Log


def leaves(hyperparameters: Mapping[str, Hyperparameter], above: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield all leaves with their paths, sorted by name at each level."""
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            yield from leaves(hyperparameter.root, path)
        else:
            yield path, hyperparameter


class RandomState:
    """MT19937, seeded by `init_genrand` of Matsumoto and Nishimura; gives the same numbers as NumPy."""

    def __init__(self, seed: int) -> None:
        words = [seed & _MASK32]
        for index in range(1, _WORDS):
            last = words[-1]
            words.append((1812433253 * (last ^ (last >> 30)) + index) & _MASK32)
        # Python's generator is also MT19937, but seeds differently.
        self._mt = random.Random()  # noqa: S311  (reproducible by design)
        self._mt.setstate((3, (*words, _WORDS), None))

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high), with 53 random bits."""
        return low + (high - low) * self._mt.random()

    def randint(self, low: int, high: int) -> int:
        """Draw from [low, high) by masked rejection; a range of one value consumes no random numbers."""
        span = high - 1 - low
        if span == 0:
            return low
        bits = span.bit_length()
        while (value := self._word(64 if bits > 32 else 32) & ((1 << bits) - 1)) > span:  # noqa: PLR2004
            pass
        return low + value

    def bytes(self, length: int) -> bytes:
        words = -(-length // 4)  # like NumPy, Python puts the first word lowest
        return self._mt.getrandbits(32 * words).to_bytes(4 * words, "little")[:length] if words else b""

    def _word(self, bits: int) -> int:
        first = self._mt.getrandbits(32)
        return first if bits == 32 else first << 32 | self._mt.getrandbits(32)  # noqa: PLR2004


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
