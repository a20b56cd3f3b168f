from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import ClassVar, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.codec import AnyFloat, from_json, from_kind, kinds, line, parsed, to_json
from detbuild.store.annotations import Attributes
from detbuild.store.experiment_dir import Header
from detbuild.store.journal import Fact, Request

READ = (Header, Attributes, Request, *(fact for fact in get_args(Fact) if fields(fact)))
HEADER = {"id": 1, "name": "a", "context_name": "c", "created": 1.5}


@dataclass(frozen=True)
class Sample:
    count: int
    ratio: float = 0.0
    name: str | None = None
    names: tuple[str, ...] = ()
    maps: tuple[Mapping[str, object], ...] = ()
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    anything: object = None


def test_values_are_taken_with_lists_as_tuples_and_unknown_keys_ignored() -> None:
    raw = {
        "count": 1,
        "ratio": 2,
        "name": None,
        "names": ["a"],
        "maps": [{"a": [1]}],
        "lists": {"a": ["b"]},
        "anything": 10**30,
        "later": 1,
    }
    assert (from_json(Sample, raw).ratio, from_json(Sample, raw).anything) == (2, 10**30)
    assert from_json(Sample, raw) == Sample(1, 2, None, ("a",), ({"a": [1]},), {"a": ["b"]}, 10**30)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ([], "is not a JSON object"),
        ({}, "has no `count`"),
        ({"count": True}, "has a `count` that is true or false"),
        ({"count": 1.0}, "has a `count` that is a number"),
        ({"count": 1 << 63}, "has a `count` that is out of range"),
        ({"count": 1, "ratio": float("nan")}, "has a `ratio` that is out of range"),
        ({"count": 1, "ratio": float("inf")}, "has a `ratio` that is out of range"),
        ({"count": 1, "name": 3}, "has a `name` that is a number"),
        ({"count": 1, "names": "abc"}, "has a `names` that is text"),
        ({"count": 1, "names": [None]}, "has a `names` that is null"),
        ({"count": 1, "maps": [[]]}, "has a `maps` that is a list"),
        ({"count": 1, "lists": {"a": [1]}}, "has a `lists` that is a number"),
        ({"count": 1, "lists": {"a": {}}}, "has a `lists` that is a map"),
    ],
)
def test_what_is_of_another_type_is_named(raw: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_json(Sample, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(cls=st.sampled_from(READ), data=st.data())
def test_whatever_a_field_holds_gives_a_value_or_an_error_in_words(cls: type, data: st.DataObject) -> None:
    names = [each.name for each in fields(cls)]
    raw = data.draw(st.dictionaries(st.sampled_from(names), JSON))
    with suppress(ValueError):
        _check(from_json(cls, raw), raw)


def _check(found: object, raw: Mapping[str, object]) -> None:
    json.dumps(asdict(found))
    for name, value in raw.items():
        if isinstance(value, (str, bool)):
            assert getattr(found, name) == value


def test_a_header_is_read_back() -> None:
    header = from_json(Header, HEADER)
    assert from_json(Header, json.loads(json.dumps(asdict(header)))) == header


class Colour(str, Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int


@dataclass(frozen=True)
class Shape:
    kind: ClassVar[str] = "shape"
    colour: Colour
    centre: Point | None = None
    corners: tuple[Point, ...] = ()
    size: AnyFloat = 0.0


Size = Literal["small", "large"]


@dataclass(frozen=True)
class Shirt:
    size: Size


def test_a_literal_is_one_of_its_texts() -> None:
    assert from_json(Shirt, {"size": "small"}) == Shirt("small")
    with pytest.raises(ValueError, match="'huge' instead of one of small, large"):
        from_json(Shirt, {"size": "huge"})


@dataclass(frozen=True)
class Empty:
    kind: ClassVar[str] = "empty"


KINDS = kinds(Shape | Empty)


@pytest.mark.parametrize(
    "value",
    [Shape(Colour.RED), Shape(Colour.RED, Point(1), (Point(2), Point(3)), float("inf")), Empty()],
)
def test_dataclasses_and_enums_in_a_dataclass_are_read_back(value: Shape | Empty) -> None:
    assert from_kind(KINDS, parsed(line(to_json(value)))) == value
    assert from_kind(KINDS, to_json(value)) == value


def test_inner_dataclasses_are_made() -> None:
    found = from_json(Shape, {"colour": "red", "centre": {"x": 1}, "corners": [{"x": 2}]})
    assert (found.centre, found.corners) == (Point(1), (Point(2),))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"kind": "other"}, "unknown kind: 'other'"),
        ({"kind": ["shape"]}, "unknown kind"),
        ({}, "unknown kind"),
        ({"kind": "shape", "colour": "blue"}, "'blue' is not a valid Colour"),
        ({"kind": "shape", "colour": "red", "centre": {}}, "has no `x`"),
        ({"kind": "shape", "colour": "red", "corners": [{"x": "1"}]}, "has a `x` that is text"),
    ],
)
def test_damage_is_an_error_in_words(raw: Mapping[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_kind(KINDS, raw)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff{}", b"[" * 100_000])
def test_a_line_is_one_json_object(data: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(data)


def test_a_line_is_compact_and_ends_with_a_newline() -> None:
    assert line({"a": (1, 2)}) == b'{"a":[1,2]}\n'
