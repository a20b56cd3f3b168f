from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.textfile import TextFileError, bodies, decode, unix_lines

TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\ufeff"))


@given(TEXT)
def test_every_content_of_a_text_is_read_as_that_text(text: str) -> None:
    assert {decode(body) for body in bodies(text)} == {text}


@given(st.binary())
def test_what_is_not_text_has_a_place(body: bytes) -> None:
    try:
        assert "\0" not in decode(body)
    except TextFileError as error:
        assert error.where.startswith(":")  # noqa: PT017  (both outcomes are checked)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"a\xff", ":1:2"),
        (b"a\r\nb\xff", ":2:2"),
        (b"a\rb\xff", ":2:2"),
        ("a\nb".encode("utf-16-le"), ":1:2"),
    ],
)
def test_the_place_is_line_and_column(body: bytes, where: str) -> None:
    with pytest.raises(TextFileError) as caught:
        decode(body)
    assert caught.value.where == where


def test_line_ends_of_unix() -> None:
    assert [unix_lines(text) for text in ("a\r\nb", "a\rb", "a\rb\nc", "a")] == [
        "a\nb",
        "a\nb",
        "a\rb\nc",
        "a",
    ]
