"""The rules of `.detignore` files: pathspec applies them, and each line is translated as in git.

pathspec finds the last pattern that matches a path, which decides. Its own patterns differ from git's in
places: `[!a]` matches a slash, `[[:alpha:]]` is unknown, a lone `!` is an error. So `GitPattern` translates a
line as git's wildmatch does (see gitignore(5)); the tests compare with git. Git matches bytes and pathspec
text, so lines and paths are decoded as Latin-1: one character is one byte. The path of a directory ends in a
slash.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import count, pairwise
from typing import TYPE_CHECKING, TypeAlias

from pathspec import PathSpec, Pattern

from detbuild.context.snapshot import raw, text

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
_BYTES = "latin-1"
_SPECIAL = re.compile(r"[*?\[\\]")
_Token: TypeAlias = "_Star | str"  # noqa: S105  (no password); str: a regular expression for exactly one byte
_EVERY_BYTE = frozenset(range(1, 256))
# The bytes of a bracket member, the byte at which a range may start (0: none), and the index after it.
_Member = tuple[frozenset[int], int, int]


class GitPattern(Pattern):
    """One line of an ignore file, as git reads it.

    `include` is False for a line with `!`, and None for one that can never match, such as a comment.
    """

    __slots__ = ("_offset", "by_name", "glob", "regex", "start", "text", "where")

    def __init__(self, line: str, *, where: str = "", base: str = "") -> None:
        """Translate a line.

        Args:
            line: in Latin-1, without its line feed.
            where: "sub/.detignore:3", or "built in".
            base: the directory that holds the ignore file, "" or "sub/"; it contains all paths to match.
        """
        kept = _without_trailing_spaces(line.removesuffix("\r"))
        glob = kept.removeprefix("!")
        dirs_only = glob.endswith("/")
        glob = glob.removesuffix("/")
        self.text = text(kept.encode(_BYTES))  # as written
        self.where = where
        self.by_name = "/" not in glob  # matches the last name of a path
        self.glob = glob.removeprefix("/")
        self.start = base + _literal_start(self.glob)  # of every match, unless it is `by_name`
        regex = None if line.startswith("#") else _regex(self.glob, paths=not self.by_name)
        super().__init__(None if regex is None else not kept.startswith("!"))
        # The slash that marks a directory is not part of its name: nothing before the end may match it.
        end = r"(?<!/)/\Z" if dirs_only else r"(?<!/)/?\Z"
        self.regex = re.compile((regex or "") + end, re.DOTALL)
        self._offset = len(base)

    def match_file(self, file: str) -> re.Match[str] | None:
        return self.regex.match(file, file.rfind("/", 0, -1) + 1 if self.by_name else self._offset)

    def reaches(self, directory: str) -> bool:
        """Whether the pattern, which matches paths, could match an entry directly in the directory."""
        return directory.startswith(self.start) or (
            self.start.startswith(directory) and "/" not in self.start[len(directory) :]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """The patterns that apply to the entries of one directory.

    An entry needs `spec` if `some_name_matches`, `path_spec` if not, and no pattern if that is None.
    """

    at: bytes  # path of the walk's root in the image, for naming ignore files
    patterns: tuple[GitPattern, ...]  # from the weakest to the strongest
    spec: PathSpec[GitPattern]  # of all patterns
    path_spec: PathSpec[GitPattern] | None  # of the patterns that match paths and can match here, if any
    some_name_matches: Callable[[bytes], bool]  # a pattern that matches names may do so; fast, mostly false

    def enter(self, directory: bytes, content: bytes | None) -> Scope:
        """Return the scope of a subdirectory.

        Args:
            directory: its path from the root, with a slash at the end.
            content: its own `.detignore`, if it has one.
        """
        base = directory.decode(_BYTES)
        if content is None:
            return replace(self, path_spec=_path_spec(self.patterns, base))
        own = _patterns(content, text(self.at + directory + NAME), base)
        always = _built_in(_ALWAYS)
        return _scope(self.at, (*self.patterns[: -len(always)], *own, *always), base)


def root_scope(at: bytes, content: bytes | None) -> Scope:
    """Return the scope of a walk's root.

    Args:
        at: its path in the image: b"" or b"name/".
        content: the root's `.detignore`, if it has one.
    """
    own = _patterns(content or b"", text(at + NAME), "")
    return _scope(at, (*_built_in(_DEFAULTS), *own, *_built_in(_ALWAYS)), "")


def excluding_pattern(spec: PathSpec[GitPattern], path: bytes) -> GitPattern | None:
    """Return the pattern that excludes a path, or None.

    Args:
        path: from the walk's root; ends in a slash for a directory.
    """
    index = spec.check_file(path.decode(_BYTES), ()).index
    if index is None:
        return None
    pattern = spec.patterns[index]
    return pattern if pattern.include else None


def select_paths(paths: Iterable[str], globs: Iterable[str]) -> tuple[str, ...]:
    """Return the paths that match one of the globs, each of which is read from the root."""
    spec = _spec([GitPattern(f"/{raw(glob).decode(_BYTES)}") for glob in globs])
    return tuple(path for path in paths if spec.match_file(raw(path).decode(_BYTES), ()))


def _patterns(content: bytes, source: str, base: str) -> list[GitPattern]:
    """Parse an ignore file (UTF-8 without mark), without the lines that can never match."""
    lines = enumerate(content.decode(_BYTES).split("\n"), 1)
    patterns = (GitPattern(line, where=f"{source}:{number}", base=base) for number, line in lines if line)
    return [pattern for pattern in patterns if pattern.include is not None]


@cache
def _built_in(content: bytes) -> tuple[GitPattern, ...]:
    return tuple(GitPattern(line, where="built in") for line in content.decode(_BYTES).splitlines())


def _scope(at: bytes, patterns: tuple[GitPattern, ...], directory: str) -> Scope:
    return Scope(
        at=at,
        patterns=patterns,
        spec=_spec(patterns),
        path_spec=_path_spec(patterns, directory),
        some_name_matches=_name_test([pattern for pattern in patterns if pattern.by_name]),
    )


def _path_spec(patterns: Iterable[GitPattern], directory: str) -> PathSpec[GitPattern] | None:
    near = [pattern for pattern in patterns if not pattern.by_name and pattern.reaches(directory)]
    return _spec(near) if near else None


def _spec(patterns: Sequence[GitPattern]) -> PathSpec[GitPattern]:
    return PathSpec(patterns, backend="simple")  # the others do not call `match_file`, if they are installed


def _name_test(patterns: Iterable[GitPattern]) -> Callable[[bytes], bool]:
    """Combine patterns that match names into one fast test, which every name that one matches passes."""
    names, starts, ends = set[bytes](), set[bytes](), set[bytes]()
    others: list[Callable[[str], object]] = []
    for pattern in patterns:
        head, tail = pattern.glob.removesuffix("*"), pattern.glob.removeprefix("*")
        if not _SPECIAL.search(pattern.glob):
            names.add(pattern.glob.encode(_BYTES))
        elif not _SPECIAL.search(tail):
            ends.add(tail.encode(_BYTES))
        elif not _SPECIAL.search(head):
            starts.add(head.encode(_BYTES))
        else:
            others.append(pattern.regex.match)
    return _any_of(frozenset(names), tuple(starts), tuple(ends), others)


def _any_of(
    names: frozenset[bytes],
    starts: tuple[bytes, ...],
    ends: tuple[bytes, ...],
    others: Sequence[Callable[[str], object]],
) -> Callable[[bytes], bool]:
    def some_name_matches(name: bytes) -> bool:
        if name in names or name.startswith(starts) or name.endswith(ends):
            return True
        if others:
            directory = name.decode(_BYTES) + "/"  # matches whenever a file of this name does
            for matches in others:  # `any` takes three times as long
                if matches(directory):
                    return True
        return False

    return some_name_matches


def _without_trailing_spaces(line: str) -> str:
    if not line.endswith(" "):
        return line
    kept = line.rstrip(" ")
    backslashes = len(kept) - len(kept.rstrip("\\"))
    return kept + " " * (backslashes % 2)


def _literal_start(glob: str) -> str:
    special = _SPECIAL.search(glob)
    return glob[: special.start()] if special else glob


def _regex(glob: str, *, paths: bool) -> str | None:
    """Translate a glob to a regular expression without its end; None when it can never match.

    Git matches a glob for paths literally up to its first special byte, and the rest as a separate glob. So
    in `a**/b` the stars are at the start of the rest and cross slashes.
    """
    start = _literal_start(glob) if paths else ""
    tokens = _tokens(glob[len(start) :], paths=paths)
    return None if tokens is None or not glob else re.escape(start) + _joined(tokens)


class _Star(Enum):
    """The stars, as lazy regular expressions."""

    NAME = r"[^/]*?"  # `*`: within a name
    DIRS = r"(?:.*?/)??"  # `**/`
    TREE = r".*?"  # `**` at the end, or before an escaped slash


def _tokens(pattern: str, *, paths: bool) -> list[_Token] | None:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        step = _star(pattern, at, paths=paths) if pattern[at : at + 1] == "*" else _byte(pattern, at)
        if step is None:
            return None
        token, at = step
        tokens.append(token)
    return tokens


def _star(pattern: str, at: int, *, paths: bool) -> tuple[_Star, int]:
    behind = at + 1
    while pattern[behind : behind + 1] == "*":
        behind += 1
    rest = pattern[behind : behind + 2]
    alone = behind - at > 1 and (at == 0 or pattern[at - 1 : at] == "/")
    if not (paths and alone and (rest in {"", "\\/"} or rest[:1] == "/")):
        return _Star.NAME, behind
    return (_Star.DIRS, behind + 1) if rest[:1] == "/" else (_Star.TREE, behind)


def _byte(pattern: str, at: int) -> tuple[str, int] | None:
    head, behind = pattern[at : at + 1], at + 1
    if head == "?":
        return "[^/]", behind
    if head == "[":
        return _bracket(pattern, behind)
    if head == "\\":
        head, behind = pattern[behind : behind + 1], behind + 1
    return (re.escape(head), behind) if head else None


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    parsed = _parse_bracket(pattern, at)
    if parsed is None:
        return None
    members, behind = parsed
    members -= {ord("/")}
    if not members:
        return None
    return "[" + "".join(re.escape(chr(member)) for member in sorted(members)) + "]", behind


def _joined(tokens: Sequence[_Token]) -> str:
    """Join the tokens so that only the last star of each kind backtracks.

    A piece between two stars can be matched at its earliest position, because the second star also matches
    from there. So each piece is made atomic, and no pattern takes exponential time. `*` cannot cross a slash,
    hence two levels: pieces between `**` and, within them, pieces between `*`.
    """
    groups = count(1)
    sections = _split(tokens, {_Star.DIRS, _Star.TREE})
    return _atomic_but_last([_section(section, groups) for section in sections], groups)


def _section(tokens: Sequence[_Token], groups: Iterator[int]) -> str:
    deep = ""
    if tokens and tokens[0] in {_Star.DIRS, _Star.TREE}:
        deep, tokens = tokens[0].value, tokens[1:]
    pieces = _split(tokens, {_Star.NAME})
    return deep + _atomic_but_last(["".join(_source(token) for token in piece) for piece in pieces], groups)


def _source(token: _Token) -> str:
    return token if isinstance(token, str) else token.value


def _split(tokens: Sequence[_Token], stars: set[_Star]) -> list[Sequence[_Token]]:
    """Split before each of the stars; the first piece has none."""
    cuts = [0, *(at for at, token in enumerate(tokens) if token in stars), len(tokens)]
    return [tokens[here:there] for here, there in pairwise(cuts)]


def _atomic_but_last(pieces: Sequence[str], groups: Iterator[int]) -> str:
    first, *middle = pieces[:-1] or [""]
    return "".join([first, *(_atomic(piece, next(groups)) for piece in middle), pieces[-1]])


def _atomic(piece: str, group: int) -> str:
    name = f"g{group}"  # Python 3.10 has no atomic groups: look ahead, then match the same text
    return f"(?=(?P<{name}>{piece}))(?P={name})"


def _parse_bracket(pattern: str, at: int) -> tuple[frozenset[int], int] | None:
    """Parse a bracket expression: the matching bytes, and the index after `]`; None if malformed.

    Args:
        pattern: the whole pattern.
        at: the index after `[`.
    """
    negated = pattern[at : at + 1] in {"!", "^"}
    at += negated
    found: set[int] = set()
    previous = 0
    while True:  # a `]` in first position is literal
        member = _member(pattern, at, previous)
        if member is None:
            return None
        members, previous, at = member
        found |= members
        if pattern[at : at + 1] == "]":
            return (_EVERY_BYTE - found if negated else frozenset(found)), at + 1


def _member(pattern: str, at: int, previous: int) -> _Member | None:
    head = pattern[at : at + 1]
    if head == "\\":
        return _single(pattern, at + 1)
    if head == "-" and previous and pattern[at + 1 : at + 2] not in {"", "]"}:
        return _range(pattern, at + 1, previous)
    if pattern[at : at + 2] == "[:":
        return _named(pattern, at + 2)
    return _single(pattern, at)


def _single(pattern: str, at: int) -> _Member | None:
    if at >= len(pattern):
        return None
    return frozenset({ord(pattern[at])}), ord(pattern[at]), at + 1


def _range(pattern: str, at: int, first: int) -> _Member | None:
    last = _single(pattern, at + (pattern[at : at + 1] == "\\"))
    if last is None:
        return None
    return frozenset(range(first, last[1] + 1)), 0, last[2]


def _named(pattern: str, at: int) -> _Member | None:
    close = pattern.find("]", at)
    if close < 0:
        return None
    if close == at or pattern[close - 1 : close] != ":":
        return _single(pattern, at - 2)  # not a name: the second `[` is literal
    members = _NAMED.get(pattern[at : close - 1])
    return None if members is None else (members, 0, close + 1)


def _ascii(characters: str) -> frozenset[int]:
    return frozenset(characters.encode("ascii"))


# git uses ASCII in every locale; its white space excludes vertical tab and form feed.
_NAMED: Mapping[str, frozenset[int]] = {
    "alnum": _ascii(string.ascii_letters + string.digits),
    "alpha": _ascii(string.ascii_letters),
    "blank": _ascii(" \t"),
    "cntrl": frozenset({*range(32), 127}),
    "digit": _ascii(string.digits),
    "graph": frozenset(range(33, 127)),
    "lower": _ascii(string.ascii_lowercase),
    "print": frozenset(range(32, 127)),
    "punct": _ascii(string.punctuation),
    "space": _ascii(" \t\n\r"),
    "upper": _ascii(string.ascii_uppercase),
    "xdigit": _ascii(string.hexdigits),
}
