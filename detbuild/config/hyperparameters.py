"""Hyperparameters: constants, ranges and choices, nested to any depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, cast

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    Strict,
    Tag,
    model_validator,
)

from detbuild.config.clauses import Clause, SchemaForm, on_field, require, when
from detbuild.config.fields import Integer, Positive
from detbuild.config.section import TAG, Section, discriminator, wrong


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


Path = tuple[str, ...]
Leaf = Const | Categorical | Int | Double | Log


def leaves(hyperparameters: Mapping[str, Hyperparameter], above: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield all leaves with their paths, sorted by name at each level."""
    for name in sorted(hyperparameters):
        hyperparameter, path = hyperparameters[name], (*above, name)
        if isinstance(hyperparameter, Nested):
            yield from leaves(hyperparameter.root, path)
        else:
            yield path, hyperparameter
