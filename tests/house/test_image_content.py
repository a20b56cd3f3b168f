"""What an image gets of detbuild: the harness, and nothing of the host."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from detbuild.context.snapshot import ContextSnapshot
from detbuild.context.walk import snapshot
from detbuild.resources import harness_dir

SHIMS = "experimental/"


@pytest.fixture(scope="module")
def harness() -> ContextSnapshot:
    return snapshot(harness_dir())


def imports_of_host(source: str, *, inside_functions: bool) -> list[str]:
    """Modules of detbuild that a source imports when it is loaded, or at any time."""
    pending, found = list(ast.parse(source).body), []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [name for name in names if name.partition(".")[0] == "detbuild"]
        pending += ast.iter_child_nodes(node)
    return found


def test_no_file_in_an_image_imports_the_host_when_it_is_loaded(harness: ContextSnapshot) -> None:
    found = {
        entry.path: modules
        for entry in harness.entries
        if entry.path.endswith(".py")
        and (modules := imports_of_host(text(entry.path), inside_functions=not entry.path.startswith(SHIMS)))
    }
    assert found == {}


def test_no_module_of_the_sdk_is_in_an_image(harness: ContextSnapshot) -> None:
    sdk = {path.name for path in (Path(__file__).parents[2] / "detbuild" / "sdk").glob("[!_]*.py")}
    shims = {entry.path.removeprefix(SHIMS) for entry in harness.entries if entry.path.startswith(SHIMS)}
    assert len(sdk) > 5
    assert {name.lstrip("_") for name in shims} & sdk == {"create.py"}  # its shim
    assert not any("sdk" in entry.path or "detbuild" in entry.path for entry in harness.entries)


def text(path: str) -> str:
    return (harness_dir() / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "anywhere", "found"),
    [
        ("import detbuild.sdk", False, ["detbuild.sdk"]),
        ("try:\n    from detbuild import sdk\nexcept ImportError: ...", False, ["detbuild"]),
        ("def f():\n    from detbuild.sdk import host", False, []),
        ("def f():\n    from detbuild.sdk import host", True, ["detbuild.sdk"]),
        ("if TYPE_CHECKING:\n    import detbuild.sdk", True, []),
        ("import detbuilder", True, []),
    ],
)
def test_a_planted_import_is_found(source: str, anywhere: bool, found: list[str]) -> None:
    assert imports_of_host(source, inside_functions=anywhere) == found
