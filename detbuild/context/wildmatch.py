"""Compiles git's glob language (`wildmatch`, see gitignore(5)) to matchers of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import count, pairwise
from typing import TYPE_CHECKING, TypeAlias

from detbuild.context.bracket import parse_bracket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SPECIAL = re.compile(rb"[*?\[\\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Glob:
    """A compiled pattern, with properties of its matches that rule out most names cheaply."""

    matches: Callable[[bytes], object]
    start: bytes = b""  # every match starts with it
    end: bytes = b""  # every match ends with it
    exact: bool = False  # `start` is the only match
    affix: bool = False  # `start` and `end` alone decide


def compile_name(pattern: bytes) -> Glob | None:
    """Compile a pattern for one name without slashes; None when it can never match."""
    special = _SPECIAL.search(pattern)
    if special is None:
        return _exact(pattern)
    if not _SPECIAL.search(pattern, special.end()):  # a single star at one end: the most frequent forms
        if pattern.startswith(b"*"):
            tail = pattern[1:]
            return Glob(matches=lambda name: name.endswith(tail), end=tail, affix=True)
        if pattern.endswith(b"*"):
            head = pattern[:-1]
            return Glob(matches=lambda name: name.startswith(head), start=head, affix=True)
    return _compile(b"", pattern, paths=False)


def compile_path(pattern: bytes) -> Glob | None:
    """Compile a pattern for a path of several names; None when it can never match.

    Like git, match the part before the first special byte literally and the rest as a separate pattern. So in
    `a**/b` the stars are at the start of the rest and cross slashes.
    """
    special = _SPECIAL.search(pattern)
    if special is None:
        return _exact(pattern)
    return _compile(pattern[: special.start()], pattern[special.start() :], paths=True)


def _exact(pattern: bytes) -> Glob | None:
    return Glob(matches=pattern.__eq__, start=pattern, exact=True) if pattern else None


def _compile(start: bytes, rest: bytes, *, paths: bool) -> Glob | None:
    tokens = _tokens(rest, paths=paths)
    if tokens is None:
        return None
    regex = re.compile(re.escape(start) + _regex(tokens) + rb"\Z", re.DOTALL)
    return Glob(matches=regex.match, start=start)


class _Star(Enum):
    """The stars, as lazy regular expressions."""

    NAME = rb"[^/]*?"  # `*`: within a name
    DIRS = rb"(?:.*?/)??"  # `**/`
    TREE = rb".*?"  # `**` at the end, or before an escaped slash


_Token: TypeAlias = "_Star | bytes"  # noqa: S105  (no password); bytes: a regular expression for exactly one byte


def _tokens(pattern: bytes, *, paths: bool) -> list[_Token] | None:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        step = _star(pattern, at, paths=paths) if pattern[at : at + 1] == b"*" else _byte(pattern, at)
        if step is None:
            return None
        token, at = step
        tokens.append(token)
    return tokens


def _star(pattern: bytes, at: int, *, paths: bool) -> tuple[_Star, int]:
    behind = at + 1
    while pattern[behind : behind + 1] == b"*":
        behind += 1
    rest = pattern[behind : behind + 2]
    alone = behind - at > 1 and (at == 0 or pattern[at - 1 : at] == b"/")
    if not (paths and alone and (rest in {b"", b"\\/"} or rest[:1] == b"/")):
        return _Star.NAME, behind
    return (_Star.DIRS, behind + 1) if rest[:1] == b"/" else (_Star.TREE, behind)


def _byte(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    head, behind = pattern[at : at + 1], at + 1
    if head == b"?":
        return rb"[^/]", behind
    if head == b"[":
        return _bracket(pattern, behind)
    if head == b"\\":
        head, behind = pattern[behind : behind + 1], behind + 1
    return (re.escape(head), behind) if head else None


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    parsed = parse_bracket(pattern, at)
    if parsed is None:
        return None
    members, behind = parsed
    members -= {ord("/")}
    if not members:
        return None
    return b"[" + b"".join(re.escape(bytes([member])) for member in sorted(members)) + b"]", behind


def _regex(tokens: Sequence[_Token]) -> bytes:
    """Join the tokens so that only the last star of each kind backtracks.

    A piece between two stars can be matched at its earliest position, because the second star also matches
    from there. So each piece is made atomic, and no pattern takes exponential time. `*` cannot cross a slash,
    hence two levels: pieces between `**` and, within them, pieces between `*`.
    """
    groups = count(1)
    sections = _split(tokens, {_Star.DIRS, _Star.TREE})
    return _atomic_but_last([_section(section, groups) for section in sections], groups)


def _section(tokens: Sequence[_Token], groups: Iterator[int]) -> bytes:
    deep = b""
    if tokens and tokens[0] in {_Star.DIRS, _Star.TREE}:
        deep, tokens = tokens[0].value, tokens[1:]
    pieces = _split(tokens, {_Star.NAME})
    return deep + _atomic_but_last([b"".join(_source(token) for token in piece) for piece in pieces], groups)


def _source(token: _Token) -> bytes:
    return token if isinstance(token, bytes) else token.value


def _split(tokens: Sequence[_Token], stars: set[_Star]) -> list[Sequence[_Token]]:
    """Split before each of the stars; the first piece has none."""
    cuts = [0, *(at for at, token in enumerate(tokens) if token in stars), len(tokens)]
    return [tokens[here:there] for here, there in pairwise(cuts)]


def _atomic_but_last(pieces: Sequence[bytes], groups: Iterator[int]) -> bytes:
    first, *middle = pieces[:-1] or [b""]
    return b"".join([first, *(_atomic(piece, next(groups)) for piece in middle), pieces[-1]])


def _atomic(piece: bytes, group: int) -> bytes:
    name = b"g%d" % group  # Python 3.10 has no atomic groups: look ahead, then match the same text
    return b"(?=(?P<%s>%s))(?P=%s)" % (name, piece, name)
