from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.engine.buildkit import wire


@given(st.integers(1, 2**29 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_number_comes_back(number: int, value: int) -> None:
    assert wire.number(wire.fields(wire.integer(number, value)), number) == value


@given(st.integers(1, 2**29 - 1), st.lists(st.binary(min_size=1)))
def test_repeated_bytes_come_back_in_order(number: int, values: list[bytes]) -> None:
    data = b"".join(wire.blob(number, value) for value in values)
    assert wire.blobs(wire.fields(data), number) == values


def test_the_encoding_is_the_one_of_the_specification() -> None:
    assert wire.integer(1, 150) == bytes.fromhex("089601")
    assert wire.blob(2, b"testing") == bytes.fromhex("120774657374696e67")
    assert wire.integer(1, -1) == b"\x08" + b"\xff" * 9 + b"\x01"


def test_defaults_are_left_out_and_read_as_such() -> None:
    assert wire.integer(1, 0) + wire.blob(2, b"") == b""
    assert (wire.number({}, 1), wire.text({}, 2), wire.blobs({}, 2)) == (0, "", [])
    assert wire.message(3, b"") == b"\x1a\x00"


def test_fields_that_nobody_asked_for_are_passed_over() -> None:
    fixed = b"\x09" + bytes(8) + b"\x15" + bytes(4)
    assert wire.number(wire.fields(fixed + wire.integer(7, 5)), 7) == 5


def test_the_last_of_several_single_values_counts() -> None:
    data = wire.integer(1, 3) + wire.integer(1, 4) + wire.blob(2, b"a") + wire.blob(2, b"b")
    assert (wire.number(wire.fields(data), 1), wire.text(wire.fields(data), 2)) == (4, "b")


@given(st.binary())
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    try:
        wire.fields(data)
    except ValueError:
        return


@pytest.mark.parametrize("data", [b"\x08", b"\x08\x80", b"\x12\x05ab", b"\x0b", b"\x08" + b"\xff" * 11])
def test_what_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|wire type"):
        wire.fields(data)
