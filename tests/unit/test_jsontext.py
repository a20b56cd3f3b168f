from __future__ import annotations

import json
import math
from enum import Enum
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.jsontext import json_text

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        st.lists(below),
        st.tuples(below),
        st.dictionaries(st.one_of(st.text(), st.floats(), st.integers()), below),
    ),
    max_leaves=20,
)


def refuse(name: str) -> NoReturn:
    raise ValueError(name)


@given(VALUES, st.sampled_from([None, 2]))
def test_whatever_is_encoded_is_strict_json(value: object, indent: int | None) -> None:
    text = json_text(value, indent=indent)
    assert text.isascii()
    json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False).encode()  # no lone surrogates


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, '"NaN"'),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
        ({"a": [math.nan, 1.5]}, '{"a": ["NaN", 1.5]}'),
        ({math.inf: 1, 2: 2, True: 3, None: 4}, '{"Infinity": 1, "2": 2, "true": 3, "null": 4}'),
        (Path("/x"), '"/x"'),
        (Enum("State", {"A": "a"})("a"), '"a"'),
        ("caf\udce9", '"caf\\\\xe9"'),
        ((1, 2), "[1, 2]"),
    ],
)
def test_what_json_has_not_becomes_text(value: object, text: str) -> None:
    assert json_text(value, indent=None) == text
