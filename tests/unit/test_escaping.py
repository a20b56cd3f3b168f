"""Text that came from elsewhere is shown without effect on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.escaping import line_of_output, number, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe", "größe"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        (b"\xff.py".decode("utf-8", "surrogateescape"), "\\xff.py"),
    ],
)
def test_what_could_act_on_a_terminal_is_made_visible(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_visible_text_can_be_printed_anywhere(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not any(char < " " or "\x7f" <= char <= "\x9f" for char in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" 10%\r 50%\r100%", "100%"),
        ("done\r", "done"),
        ("\x1b[1;32mINFO\x1b[0m ok", "INFO ok"),
        ("\x1b]0;title\x07x", "\\x1b]0;title\\x07x"),
        ("a\tb", "a\tb"),
    ],
)
def test_a_line_of_output_keeps_its_words_and_loses_what_acts(text, shown):
    assert line_of_output(text) == shown


def test_numbers_have_six_digits_and_other_values_are_text():
    assert [number(value) for value in (0.1 + 0.2, 7, None, "a\x1b")] == ["0.3", "7", "None", "a\\x1b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456789, "0.123457"),
        (7, "7"),
        ([0.5] * 4, "[0.5, 0.5, 0.5, 0.5]"),
        ([0.5] * 1_000_000, "[0.5, 0.5, 0.5, 0.5, ... 1,000,000 values]"),
        ([[1, 2, 3, 4, 5]] * 9, "[" + "[1, 2, 3, 4, ... 5 values], " * 4 + "... 9 values]"),
        ("a\n" * 1000, "a\\n" * 40 + "..."),
    ],
)
def test_a_value_is_short_for_people(value, text):
    assert number(value) == text
