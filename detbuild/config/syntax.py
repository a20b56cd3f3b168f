"""Explains syntax errors of YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import yaml

_TAB: Final = ("tab in the indentation", "indent with spaces")
# Message of PyYAML or libyaml -> our message and hint; "" keeps theirs.
_MISTAKES: Final = (
    ("tab character", *_TAB),
    ("mapping values are", "", "quote text with `: `, check indentation and the space after `:` above"),
    ("hexdecimal", "invalid backslash escape", "put text with backslashes in single quotes"),
    ("unknown escape", "invalid backslash escape", "put text with backslashes in single quotes"),
    ("expected key", "", "check the indentation, and put text with one kind of quote in the other"),
    ("block end", "", "check the indentation, and put text with one kind of quote in the other"),
    ("expected ':'", "", "put `: ` after the key, and close every quote above"),
    ("expected", "", "close every bracket and quote, and check the indentation"),
)


def explained(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str, Any]:
    """Return the message, the hint and the mark (or None) of a syntax error in a text."""
    mark = error.problem_mark or error.context_mark
    problem = (error.problem or "cannot be read").replace(" in this context", "")
    if "cannot start any token" in problem and mark:
        line = text.splitlines()[mark.line : mark.line + 1]
        return (*_first_letter("".join(line)[mark.column : mark.column + 1]), mark)
    if "end of stream" in problem and "quoted" in str(error.context):
        return "this quote is never closed", "close it", error.context_mark
    if error.context_mark and "flow" in str(error.context) and "expected ',' or" in problem:
        opened = error.context_mark.line + 1
        return f"expected `,` or a closing bracket; the bracket opened on line {opened}", "close it", mark
    mistake = next(((what, hint) for words, what, hint in _MISTAKES if words in problem), ("", ""))
    return mistake[0] or problem, mistake[1], mark


def _first_letter(letter: str) -> tuple[str, str]:
    return _TAB if letter == "\t" else (f"text cannot begin with `{letter}`", "put it in quotes")
