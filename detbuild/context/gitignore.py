"""The rules of `.detignore` files: gitignore(5) on bytes; the tests compare with git.

Compiles git's glob language (`wildmatch`, see gitignore(5)) to matchers of bytes.

Bracket expressions of git's glob language, `[a-z]`, `[!a]`, `[[:alpha:]]`, as sets of bytes.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count, pairwise
from typing import TYPE_CHECKING, TypeAlias

from detbuild.context.snapshot import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

NAME = b".detignore"
# Cannot be undone with `!`: Python is compiled again in the image, and ignore files have no use there.
_ALWAYS = b"""\
__pycache__/
*.pyc
*.pyo
*$py.class
.detignore
"""
# As in Determined; e.g. `!.git/` in the root's `.detignore` undoes one.
_DEFAULTS = b"""\
terraform
terraform_data
terraform.tfstate*
terraform.tfvars*
.terraform*
.git/
.vscode/
.idea/
.mypy_cache/
/shared_fs
"""
_SPECIAL = re.compile(rb"[*?\[\\]")
_Token: TypeAlias = "_Star | bytes"  # noqa: S105  (no password); bytes: a regular expression for exactly one byte
_EVERY_BYTE = frozenset(range(1, 256))
# The bytes of a bracket member, the byte at which a range may start (0: none), and the index after it.
_Member = tuple[frozenset[int], int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One line of an ignore file."""

    pattern: str  # as written
    where: str  # "sub/.detignore:3", or "built in"
    negated: bool
    dirs_only: bool
    by_name: bool  # without a slash inside: matches the last name of a path
    glob: Glob

    def reaches(self, directory: bytes) -> bool:
        """Whether the rule, which matches paths, could match an entry directly in the directory."""
        start = self.glob.start
        return directory.startswith(start) or (
            start.startswith(directory) and b"/" not in start[len(directory) :]
        )


def parse_rules(content: bytes, source: str) -> tuple[Rule, ...]:
    """Parse an ignore file (UTF-8 without mark); lines that can never match give no rule."""
    rules = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            kept = _without_trailing_spaces(line.removesuffix(b"\r"))
            rules.append(_rule(kept, f"{source}:{number}"))
    return tuple(rule for rule in rules if rule is not None)


def _without_trailing_spaces(line: bytes) -> bytes:
    if not line.endswith(b" "):
        return line
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return kept + b" " * (backslashes % 2)


def _rule(line: bytes, where: str) -> Rule | None:
    pattern = line.removeprefix(b"!")
    dirs_only = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/")
    by_name = b"/" not in pattern
    glob = compile_name(pattern) if by_name else compile_path(pattern.removeprefix(b"/"))
    if glob is None:
        return None
    return Rule(
        pattern=text(line),
        where=where,
        negated=line.startswith(b"!"),
        dirs_only=dirs_only,
        by_name=by_name,
        glob=glob,
    )


def _built_in(content: bytes) -> tuple[Rule, ...]:
    return tuple(replace(rule, where="built in") for rule in parse_rules(content, ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """The rules of one ignore file as they apply to one directory, last line first."""

    base: bytes  # the directory that holds the file: b"" or b"sub/dir/"
    rules: Sequence[Rule]
    below: bytes  # the directory, relative to `base`
    near: Sequence[Rule]  # rules that can match here

    def last_match(self, name: bytes, *, is_dir: bool) -> Rule | None:
        path = self.below + name
        for rule in self.near:
            if (is_dir or not rule.dirs_only) and rule.glob.matches(name if rule.by_name else path):
                return rule
        return None


def _level(base: bytes, rules: Sequence[Rule], directory: bytes) -> _Level:
    below = directory[len(base) :]
    near = [rule for rule in rules if rule.by_name or rule.reaches(below)]
    return _Level(base=base, rules=rules, below=below, near=near)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """All rules that apply to the entries of one directory."""

    at: bytes  # path of the walk's root in the image, for naming ignore files
    levels: tuple[_Level, ...]  # the first one with a match decides
    some_name_matches: Callable[[bytes], bool]  # false for most names, and fast
    by_paths: bool  # some rule that can match here matches paths

    def verdict(self, name: bytes, *, is_dir: bool) -> Rule | None:
        """Return the rule that excludes this entry, or None.

        Always None if neither `by_paths` nor `some_name_matches(name)` is true.
        """
        for level in self.levels:
            rule = level.last_match(name, is_dir=is_dir)
            if rule is not None:
                return None if rule.negated else rule
        return None

    def enter(self, directory: bytes, content: bytes | None) -> Scope:
        """Return the scope of a subdirectory.

        Args:
            directory: its path from the root, with a slash at the end.
            content: its own `.detignore`, if it has one.
        """
        always, *levels = (_level(level.base, level.rules, directory) for level in self.levels)
        if content is None:
            return _scope(self.at, (always, *levels), self.some_name_matches)
        own = parse_rules(content, text(self.at + directory + NAME))
        levels.insert(0, _level(directory, own[::-1], directory))
        return _scope(self.at, (always, *levels), None)


def root_scope(at: bytes, content: bytes | None) -> Scope:
    """Return the scope of a walk's root.

    Args:
        at: its path in the image: b"" or b"name/".
        content: the root's `.detignore`, if it has one.
    """
    given = _built_in(_DEFAULTS) + parse_rules(content or b"", text(at + NAME))
    levels = (_level(b"", _built_in(_ALWAYS)[::-1], b""), _level(b"", given[::-1], b""))
    return _scope(at, levels, None)


def _scope(at: bytes, levels: tuple[_Level, ...], some_name_matches: Callable[[bytes], bool] | None) -> Scope:
    if some_name_matches is None:
        some_name_matches = _any_of([rule.glob for level in levels for rule in level.rules if rule.by_name])
    by_paths = any(not rule.by_name for level in levels for rule in level.near)
    return Scope(at=at, levels=levels, some_name_matches=some_name_matches, by_paths=by_paths)


def _any_of(globs: Iterable[Glob]) -> Callable[[bytes], bool]:
    """Combine all globs into one fast test, which most names fail."""
    globs = tuple(globs)
    names = frozenset(glob.start for glob in globs if glob.exact)
    starts = tuple({glob.start for glob in globs if glob.affix and glob.start})
    ends = tuple({glob.end for glob in globs if glob.affix and not glob.start})
    others = tuple(glob.matches for glob in globs if not (glob.exact or glob.affix))

    def some_name_matches(name: bytes) -> bool:
        if name in names or name.startswith(starts) or name.endswith(ends):
            return True
        for matches in others:  # noqa: SIM110  (runs for every entry; `any` takes three times as long)
            if matches(name):
                return True
        return False

    return some_name_matches


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
