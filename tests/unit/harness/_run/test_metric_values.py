from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._run.metric_values import LeftOut, UnusableError, attempted, plain

LEAVES = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()
WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    LEAVES | WHOLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(VALUES)
def test_values_of_json_stay_as_they_are(value: Any) -> None:
    assert plain(value) == value
    assert json.loads(json.dumps(plain(value))) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        ((1, 2), [1, 2]),
        ({1: 2.0}, {"1": 2.0}),
        (2**63, float(2**63)),
    ],
)
def test_arrays_and_tuples_become_numbers_and_lists(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_infinities_and_nan_are_numbers() -> None:
    assert plain([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert math.isnan(plain(np.float64("nan")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "it is of type object, not a number"),
        (1j, "it is of type complex, not a number"),
        (10**400, "OverflowError"),
        (np.zeros(100_001), "100001 values"),
        ([0.0] * 100_001, "more than 100000 values"),
    ],
)
def test_what_is_no_metric_says_why(value: Any, why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        plain(value)


def test_a_list_that_contains_itself_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnusableError, match="contains itself"):
        plain(endless)


def test_an_error_of_a_users_type_is_named_without_its_text() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise AssertionError

    def fail() -> None:
        raise OddError

    with pytest.raises(UnusableError, match=r"^reading it fails with OddError$"):
        attempted(fail)


def test_each_metric_that_is_left_out_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    left_out = LeftOut("validation")
    for _ in range(3):
        assert left_out.written({"good": 1.0, "bad": object()}) == {"good": 1.0}
    (record,) = caplog.records
    assert record.getMessage() == (
        "the metric bad of validation is left out of reports: "
        "it is of type object, not a number; return a number instead"
    )
