from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.image.versions import Specifier, allows, minor, parse_specifiers, release


@pytest.mark.parametrize(
    ("clause", "allowed", "refused"),
    [
        ("==2.13.0", ["2.13.0", "2.13"], ["2.13.1", "2.12.0"]),
        ("==2.13.0+cpu", ["2.13.0"], ["2.13.1"]),
        ("==2.*", ["2.4.1", "2.15.0"], ["3.0"]),
        ("!=2.13.*", ["2.14.1"], ["2.13.0"]),
        ("~=2.4", ["2.4.1", "2.15.0"], ["3.0.0", "2.3.0"]),
        ("~=2.4.1", ["2.4.1", "2.4.9"], ["2.5.0", "2.4.0"]),
        (">=2.10", ["2.10.0", "2.11.0"], ["2.9.1"]),
        ("<2.10", ["2.9.1"], ["2.10.0"]),
        (">2.10", ["2.10.1", "2.11"], ["2.10.0"]),
        ("<=2.10", ["2.10.0"], ["2.10.1"]),
        ("(>=2.4, <3)", ["2.4.0", "2.99"], ["3.0", "2.3"]),
    ],
)
def test_clauses_allow_what_pip_would_allow(clause: str, allowed: list[str], refused: list[str]) -> None:
    clauses = parse_specifiers(clause)
    assert clauses is not None
    assert [version for version in [*allowed, *refused] if allows(clauses, version)] == allowed


def test_text_that_is_no_list_of_clauses_is_told_apart() -> None:
    assert parse_specifiers("@ https://example.org/x.whl") is None
    assert parse_specifiers("") == ()


def test_a_version_is_its_numbers() -> None:
    assert (release("2.13.0+cpu"), release("v1.0rc1"), release("main")) == ((2, 13, 0), (1, 0), ())
    assert minor("2") == (2, 0)


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4)
)
def test_two_versions_are_ordered_one_way_only(left: list[int], right: list[int]) -> None:
    first, second = (".".join(map(str, numbers)) for numbers in (left, right))
    verdicts = [Specifier(operator, second).allows(first) for operator in ("<", "==", ">")]
    assert sum(verdicts) == 1
    assert Specifier("<=", second).allows(first) is (verdicts[0] or verdicts[1])
    assert Specifier("!=", second).allows(first) is not verdicts[1]
