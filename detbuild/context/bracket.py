"""Bracket expressions of git's glob language, `[a-z]`, `[!a]`, `[[:alpha:]]`, as sets of bytes."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERY_BYTE = frozenset(range(1, 256))


def _ascii(text: str) -> frozenset[int]:
    return frozenset(text.encode("ascii"))


# git uses ASCII in every locale; its white space excludes vertical tab and form feed.
_NAMED: Mapping[bytes, frozenset[int]] = {
    b"alnum": _ascii(string.ascii_letters + string.digits),
    b"alpha": _ascii(string.ascii_letters),
    b"blank": _ascii(" \t"),
    b"cntrl": frozenset({*range(32), 127}),
    b"digit": _ascii(string.digits),
    b"graph": frozenset(range(33, 127)),
    b"lower": _ascii(string.ascii_lowercase),
    b"print": frozenset(range(32, 127)),
    b"punct": _ascii(string.punctuation),
    b"space": _ascii(" \t\n\r"),
    b"upper": _ascii(string.ascii_uppercase),
    b"xdigit": _ascii(string.hexdigits),
}


def parse_bracket(pattern: bytes, at: int) -> tuple[frozenset[int], int] | None:
    """Parse a bracket expression: the matching bytes, and the index after `]`; None if malformed.

    Args:
        pattern: the whole pattern.
        at: the index after `[`.
    """
    negated = pattern[at : at + 1] in {b"!", b"^"}
    at += negated
    found: set[int] = set()
    previous = 0
    while True:  # a `]` in first position is literal
        member = _member(pattern, at, previous)
        if member is None:
            return None
        members, previous, at = member
        found |= members
        if pattern[at : at + 1] == b"]":
            return (_EVERY_BYTE - found if negated else frozenset(found)), at + 1


# The bytes of a bracket member, the byte at which a range may start (0: none), and the index after it.
_Member = tuple[frozenset[int], int, int]


def _member(pattern: bytes, at: int, previous: int) -> _Member | None:
    head = pattern[at : at + 1]
    if head == b"\\":
        return _single(pattern, at + 1)
    if head == b"-" and previous and pattern[at + 1 : at + 2] not in {b"", b"]"}:
        return _range(pattern, at + 1, previous)
    if pattern[at : at + 2] == b"[:":
        return _named(pattern, at + 2)
    return _single(pattern, at)


def _single(pattern: bytes, at: int) -> _Member | None:
    if at >= len(pattern):
        return None
    return frozenset({pattern[at]}), pattern[at], at + 1


def _range(pattern: bytes, at: int, first: int) -> _Member | None:
    last = _single(pattern, at + (pattern[at : at + 1] == b"\\"))
    if last is None:
        return None
    return frozenset(range(first, last[1] + 1)), 0, last[2]


def _named(pattern: bytes, at: int) -> _Member | None:
    close = pattern.find(b"]", at)
    if close < 0:
        return None
    if close == at or pattern[close - 1 : close] != b":":
        return _single(pattern, at - 2)  # not a name: the second `[` is literal
    members = _NAMED.get(pattern[at : close - 1])
    return None if members is None else (members, 0, close + 1)
