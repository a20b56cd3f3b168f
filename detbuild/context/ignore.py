"""The rules of `.detignore` files: gitignore(5) on bytes; the tests compare with git."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detbuild.context.snapshot import text
from detbuild.context.wildmatch import Glob, compile_name, compile_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
