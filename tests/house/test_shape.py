"""The house keeps its measure: sizes of modules and functions, where printing and wide catching may be."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for top in ("detbuild", "harness/determined")
    for path in (ROOT / top).rglob("*.py")
    if path.stat().st_size
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions() -> Iterator[tuple[str, Function]]:
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, Function):
                yield f"{name(path)}:{node.lineno} {node.name}", node


def lines_of(node: Function) -> int:
    """Lines of the body without its docstring: a long explanation is not a long function."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_module_is_longer_than_800_lines() -> None:
    assert [f"{name(path)}: {length(path)}" for path in MODULES if length(path) > 800] == []


def test_no_function_is_longer_than_50_lines() -> None:
    assert [f"{where}: {lines_of(node)}" for where, node in functions() if lines_of(node) > 50] == []


def test_the_median_function_has_at_most_10_lines() -> None:
    assert statistics.median(lines_of(node) for _, node in functions()) <= 10


def test_no_function_has_more_than_5_positional_parameters_besides_self() -> None:
    def positional(node: Function) -> int:
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        return len(names) - (names[:1] in (["self"], ["cls"]))

    # The signatures that Determined's users call by position are not ours to change.
    public = {
        "create",
        "wrap_optimizer",
        "step_optimizer",
        "configure_apex_amp",
        "configure_fit",
        "backward",
        "fit",
        "torch_batch_process",
        "__init__",
    }
    found = [where for where, node in functions() if positional(node) > 5 and node.name not in public]
    assert found == []


def printing(path: Path) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for node in ast.walk(parse(path))
    )


def test_only_the_command_line_and_the_container_entrypoint_print() -> None:
    allowed = ("detbuild/cli/", "harness/determined/exec/")
    assert [name(path) for path in MODULES if printing(path) and not name(path).startswith(allowed)] == []


def catches_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    reraises = any(isinstance(child, ast.Raise) for child in ast.walk(node))
    names = {child.id for child in caught if isinstance(child, ast.Name)}
    return (node.type is None or bool(names & {"Exception", "BaseException"})) and not reraises


def test_everything_is_caught_only_at_the_outermost_boundaries() -> None:
    allowed = {
        "detbuild/checkpoint/__main__.py",
        "detbuild/cli/__main__.py",
        "detbuild/controller/__main__.py",
        "detbuild/search/hook.py",
        "harness/determined/_contract/plugins.py",  # foreign packages
        "harness/determined/exec/worker.py",
    }
    found = {name(path) for path in MODULES if any(catches_all(node) for node in ast.walk(parse(path)))}
    assert found - allowed == set()


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc"])
def test_modules_are_named_for_what_they_hold(word: str) -> None:
    assert [name(path) for path in MODULES if path.stem.strip("_") == word] == []


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def test_the_contract_of_host_and_run_imports_itself_and_the_standard_library_only() -> None:
    contract = [path for path in MODULES if "_contract" in path.parts]
    outside = [
        f"{name(path)}: {module}"
        for path in contract
        for module in imported(path)
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not module.startswith("determined._contract")
    ]
    assert contract
    assert outside == []
