"""What is printed goes through one encoder and one filter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTPUT = [
    *(ROOT / "detbuild" / "cli").rglob("*.py"),
    *(ROOT / "detbuild" / "report").rglob("*.py"),
    *(ROOT / "detbuild" / "sdk").rglob("*.py"),
]
# The page refuses what is not finite; the SDK makes text for the config's reader.
OWN_JSON = {"detbuild/report/page.py", "detbuild/sdk/create.py", "detbuild/sdk/unmanaged.py"}
# Streams are used for their bytes (a page, logs), whether they are terminals, or past the filter on purpose.
OWN_STREAMS = {"report.py", "images.py", "live.py", "output.py", "experiments.py", "logs.py", "terminal.py"}


def calls(source: str, owner: str, names: set[str]) -> list[int]:
    """Lines that use `owner.name`, or a name that was imported from it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        used = isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == owner
        imported = isinstance(node, ast.ImportFrom) and node.module == owner
        if used or (imported and any(alias.name in names for alias in node.names)):
            found.append(node.lineno)
    return found


def test_json_is_made_by_the_strict_encoder_alone() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in OUTPUT
        if calls(path.read_text(encoding="utf-8"), "json", {"dump", "dumps", "JSONEncoder"})
    }
    assert found - OWN_JSON == set()


def test_only_few_modules_touch_the_streams_themselves() -> None:
    found = {
        path.name
        for path in (ROOT / "detbuild" / "cli").rglob("*.py")
        if calls(path.read_text(encoding="utf-8"), "sys", {"stdout", "stderr", "__stdout__", "__stderr__"})
    }
    assert found - OWN_STREAMS == set()


@pytest.mark.parametrize(
    "planted", ["import json\njson.dumps(1)", "from json import dumps", "import json\njson.dump(1, f)"]
)
def test_a_planted_call_is_found(planted: str) -> None:
    assert calls(planted, "json", {"dump", "dumps", "JSONEncoder"})
