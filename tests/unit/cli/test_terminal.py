from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detbuild.cli.terminal import ControlFilter, cut, unfiltered, width

ATTACKS = {
    "clipboard": "\x1b]52;c;aGk=\x07",
    "title": "\x1b]0;owned\x1b\\",
    "hyperlink": "\x1b]8;;https://evil\x1b\\x\x1b]8;;\x1b\\",
    "cursor report": "\x1b[6n",
    "device attributes": "\x1b[c",
    "erase": "\x1b[2J",
    "home": "\x1b[H",
    "private colour": "\x1b[>4;2m",
    "query of a colour": "\x1b[?4m",
    "intermediate": "\x1b[1 m",
    "dcs": "\x1bP$q q\x1b\\",
    "apc": "\x1b_x\x1b\\",
    "pm": "\x1b^x\x1b\\",
    "sos": "\x1bXx\x1b\\",
    "reset": "\x1bc",
    "charset": "\x1b(0",
    "shift out": "\x0e",
    "c1 csi": "\x9b6n",
    "c1 osc": "\x9d52;c;x\x9c",
    "bell": "\x07",
    "backspace": "\x08",
    "delete": "\x7f",
    "form feed": "\x0c",
    "vertical tab": "\x0b",
    "nul": "\x00",
    "override": "\u202eabc\u202c",
    "escape in a colour": "\x1b[3\x1b[1m",
    "endless colour": "\x1b[" + "1;" * 200 + "m",
}
PIECES = st.lists(
    st.one_of(
        st.sampled_from([text.encode() for text in ATTACKS.values()]),
        st.sampled_from([b"\x1b", b"\x1b[", b"\x1b[31", b"m", b"\x1b[31m", b"\x9b", b"\xc2", b"\x9d0;x"]),
        st.binary(max_size=8),
        st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=12,
)


def filtered(*pieces: bytes) -> bytes:
    terminal = ControlFilter()
    return b"".join([*map(terminal.feed, pieces), terminal.finish()])


def changes_only_text_and_colour(shown: bytes) -> bool:
    """A strict terminal: it knows text, three controls and colours, and stops at anything else."""
    state = "text"
    for char in shown.decode("utf-8", "strict"):
        if state == "text":
            if char == "\x1b":
                state = "escape"
            elif char not in "\t\n\r" and (char < " " or "\x7f" <= char <= "\x9f"):
                return False
        elif state == "escape":
            if char != "[":
                return False
            state = "colour"
        elif char == "m":
            state = "text"
        elif char not in "0123456789;:":
            return False
    return state == "text"


@given(PIECES)
@example([b"\x1b", b"]52;c;x\x07"])
@example([b"\xc2", b"\x9b6n"])
def test_no_state_of_a_terminal_but_text_and_colour_can_change(pieces: list[bytes]) -> None:
    assert changes_only_text_and_colour(filtered(*pieces))


@given(PIECES, st.data())
def test_how_the_bytes_are_cut_makes_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert filtered(*parts) == filtered(whole)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_acts_on_a_terminal_is_shown_as_text(name: str) -> None:
    shown = filtered(b"a", ATTACKS[name].encode(), b"b")
    assert changes_only_text_and_colour(shown)
    assert shown.startswith(b"a")
    assert re.search(rb"\\[xu][0-9a-f]{2}", shown)


def test_text_and_colours_pass_unchanged() -> None:
    text = "a\tb\r\n\x1b[1;38:2::1:2:3m\x1b[mfamily \U0001f468\u200d\U0001f469 é 中\n".encode()
    assert filtered(text) == text
    assert filtered(*(text[i : i + 1] for i in range(len(text)))) == text


def test_bytes_that_are_no_text_are_shown() -> None:
    assert filtered(b"\xff\x9b\x80") == b"\\xff\\x9b\\x80"


def test_another_encoding_of_the_terminal_is_respected() -> None:
    terminal = ControlFilter("latin-1")
    assert terminal.feed(b"\xe9\x9b6n") + terminal.finish() == b"\xe9\\x9b6n"


def test_a_stream_that_is_no_terminal_is_left_alone() -> None:
    assert unfiltered(sys.stdout) is sys.stdout


def run_on(terminal: bool, code: str) -> bytes:
    """What a program that prints through the filter writes to a terminal, or to a pipe."""
    program = f"import sys\nfrom detbuild.cli.terminal import *\nwith guarded():\n    {code}"
    if not terminal:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert child.wait() == 0
    return written


@pytest.mark.parametrize(
    "code",
    [
        r"print('\x1b]52;c;x\x07\x1b[31mred')",
        r"sys.stdout.buffer.write(b'\x1b]52;c;x\x07\x1b[31mred\n')",
        r"sys.stderr.write('\x1b]52;c;x\x07\x1b[31mred\n')",
        r"import click; click.echo('\x1b]52;c;x\x07\x1b[31mred')",
        r"import click; click.echo('\x1b]52;c;x\x07\x1b[31mred', err=True)",
        r"import click; click.echo(b'\x1b]52;c;x\x07\x1b[31mred')",
        r"sys.stdout.write('\x1b'); sys.stdout.flush(); sys.stdout.write(']52;c;x\x07\x1b[31mred\n')",
    ],
)
def test_everything_that_is_printed_on_a_terminal_goes_through_the_filter(code: str) -> None:
    assert run_on(True, code) == b"\\x1b]52;c;x\\x07\x1b[31mred\r\n"


def test_a_pipe_gets_the_exact_bytes() -> None:
    assert run_on(False, r"sys.stdout.buffer.write(b'\x1b]52;c;x\x07\xff')") == b"\x1b]52;c;x\x07\xff"


def test_raw_output_reaches_the_terminal_as_it_is() -> None:
    assert run_on(True, r"unfiltered(sys.stdout).write('\x1b[6n\n')") == b"\x1b[6n\r\n"


@given(st.text(), st.integers(2, 30))
def test_a_cut_text_fits_and_a_short_one_stays(text, room):
    found = cut(text, room)
    assert width(found) <= room
    assert (found == text) == (width(text) <= room)
