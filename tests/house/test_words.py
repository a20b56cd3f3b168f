"""Words that text for people does not use: help, errors, hints, pages, docs, scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_COMPARED = "longer|more|one|other|such|less|newer|older|larger|greater"
# Each with what is written for it.
FORBIDDEN = {
    r"\bmend(s|ed|ing)?\b": "hint, repair",
    rf"\b(?<!there )(is|are|was|were) no (?!({_COMPARED})\b)(?=\w)": "is not a valid X, unknown X",
    r"\bto be had\b|\bcan be had\b": "is available",
    r"\b(is|are) none of\b": "is not one of",
    r"\bnobody\b|\bsomebody\b|\bwhoever\b": "unused, the caller, another process",
    r"\b(go|goes|going|went) on\b": "continues, keeps running",
    r"\b(take|takes|taken|took) up\b": "restarts, continues",
    r"\b(drives|attends)\b": "runs, watches",
    r"\bfor good\b|\bfor ever\b": "permanently, forever",
    r"\bin the place of\b": "instead of, replaces",
    r"\banew\b": "again, rebuilt",
    r"\bof no meaning\b|\bwithout meaning\b": "has no effect",
    r"\b(CPU|GPU|for a|of the|free|no) places?\b|\bplaces? (is|are) (taken|free)\b": "slot",
    r"\bwants\b|\bwanted by\b": "requests, uses, needs",
    r"\bas grave\b": "at or above this level",
    r"\bhopeless\b": "not retried",
    r"\bsay what\b|\bit is told of\b": "check, show, receive",
    r"^Of the (experiment|trial|run)\.": "(leave out)",
    r"\bset aside\b": "rejected, quarantined",
    r"\bis over\b|\bare over\b": "has ended",
    r"\bnot carried\b": "not supported",
    r"\ba defect of detbuild\b": "a bug in detbuild",
    r"\b(pass|passes) over\b": "skip",
    r"\bleg\b|\blegs\b": "segment",
    r"\bpairs? of hands\b": "workers",
}
_PATTERNS = {re.compile(pattern, re.IGNORECASE | re.MULTILINE): pattern for pattern in FORBIDDEN}
_TEXTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "run.sh",
    "test.sh",
    "setup/*.sh",
    ".ci/*",
    ".github/**/*.yml",
    "changes.d/*.md",
    "benchmarks/**/*.md",
    "tests/**/*.md",
    "detbuild/report/assets/*",
)


def texts() -> Iterator[tuple[str, str]]:
    """All text that a user or a reader of the code meets as prose, each with its place."""
    for top in ("detbuild", "harness/determined", "examples", "benchmarks"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield from _of_python(path)
    for pattern in _TEXTS:
        for path in sorted(ROOT.glob(pattern)):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                yield f"{path.relative_to(ROOT)}:{number}", line


def _of_python(path: Path) -> Iterator[tuple[str, str]]:
    where = path.relative_to(ROOT)
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield f"{where}:{node.lineno}", "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f"{where}:{node.lineno}", node.value
    for number, line in enumerate(source.splitlines(), start=1):
        if "# " in line:
            yield f"{where}:{number}", line.partition("# ")[2]


def findings() -> list[str]:
    """Each place with the word that is there and what is written for it."""
    found = {}
    for where, text in texts():
        for pattern, name in _PATTERNS.items():
            for match in pattern.finditer(text):
                found[f"{where}: {match[0]!r}, write: {FORBIDDEN[name]}"] = None
    return list(found)


def test_words_that_are_not_used() -> None:
    found = findings()
    assert not found, "\n".join(found)
