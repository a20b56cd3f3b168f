"""The bars of the house over all modules: each starts at a measured figure and only tightens."""

from __future__ import annotations

import ast
from collections import Counter
from functools import lru_cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
TOPS = {"detbuild": "", "harness/determined": "harness/"}
GOAL_OF_FOLDER = 15
GOAL_OF_CLI = 20


def modules() -> list[Path]:
    """All modules that are not empty, relative to the root."""
    found = (path for top in TOPS for path in (ROOT / top).rglob("*.py") if path.stat().st_size)
    return sorted(path.relative_to(ROOT) for path in found)


def lines(path: Path) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


@lru_cache(1)
def graph() -> grimp.ImportGraph:
    """All imports, those inside functions and those for type checkers too."""
    return grimp.build_graph("detbuild", "determined", cache_dir=None)


def edges() -> list[tuple[str, str]]:
    imports = graph()
    return [
        (one, other) for one in imports.modules for other in imports.find_modules_directly_imported_by(one)
    ]


def test_import_edges() -> None:
    total = sum(len(lines(path)) for path in modules())
    assert len(edges()) / total * 1000 <= 25


def test_import_lines() -> None:
    total = imported = 0
    for path in modules():
        total += len(lines(path))
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        statements = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
        imported += len(
            {line for node in statements for line in range(node.lineno, (node.end_lineno or 0) + 1)}
        )
    assert imported / total <= 0.072  # goal: 0.07


def test_modules_of_a_folder() -> None:
    found = Counter(path.parent for path in modules() if path.stem not in {"__init__", "__main__"})
    too_many = {
        folder.as_posix(): count
        for folder, count in found.items()
        if count > (GOAL_OF_CLI if folder.name == "cli" else GOAL_OF_FOLDER)
    }
    assert too_many == {}


def test_import_cycles() -> None:
    imports = graph()
    circular = {one for one, other in edges() if imports.chain_exists(other, one)}
    assert circular == set()


def test_each_module_has_a_test_file_of_its_name() -> None:
    missing = [path.as_posix() for path in modules() if path.stem != "__init__"]
    missing = [path for path in missing if not (ROOT / mirror(Path(path))).exists()]
    assert not missing, missing


def mirror(path: Path) -> Path:
    """Where the tests of a module are."""
    text = path.as_posix().removeprefix("detbuild/").replace("harness/determined/", "harness/")
    name = f"test_{path.stem.strip('_')}.py"
    return Path("tests/unit") / Path(text).parent / name


def test_lines_of_tests() -> None:
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py"))
    assert tests / sum(len(lines(path)) for path in modules()) >= 0.82
