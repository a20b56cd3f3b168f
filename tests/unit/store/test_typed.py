from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.store.attributes import Attributes
from detbuild.store.folder import Header
from detbuild.store.journal import Fact
from detbuild.store.requests import Request
from detbuild.store.typed import typed

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
    assert (typed(Sample, raw).ratio, typed(Sample, raw).anything) == (2, 10**30)
    assert typed(Sample, raw) == Sample(1, 2, None, ("a",), ({"a": [1]},), {"a": ["b"]}, 10**30)


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
        typed(Sample, raw)


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
        _check(typed(cls, raw), raw)


def _check(found: object, raw: Mapping[str, object]) -> None:
    json.dumps(asdict(found))
    for name, value in raw.items():
        if isinstance(value, (str, bool)):
            assert getattr(found, name) == value


def test_a_header_is_read_back() -> None:
    header = typed(Header, HEADER)
    assert typed(Header, json.loads(json.dumps(asdict(header)))) == header
