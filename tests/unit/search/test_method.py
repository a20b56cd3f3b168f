from __future__ import annotations

import pytest

from detbuild.search.method import equal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1),
        (0.1, 0.1 * (1 + 4e-16)),
        (1.0, 1),
        ("a", "a"),
        (None, None),
        ([1, 0.5], (1, 0.5)),
        ({"a": {"b": [0.5]}}, {"a": {"b": [0.5]}}),
    ],
)
def test_equal_as_json_is_but_for_the_last_digits(one: object, other: object) -> None:
    assert equal(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (0.1, 0.1000001),
        ("1", 1),
        (None, 0),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {}),
        (0.5, "0.5"),
    ],
)
def test_anything_else_differs(one: object, other: object) -> None:
    assert not equal(one, other)
