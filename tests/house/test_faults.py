"""Every fault that the documentation speaks of is made by a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
][2:]


def functions_of(file: Path) -> set[str]:
    """`test_name`, and `TestClass::test_name` of those in classes."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_fault_has_a_test_that_makes_it(row: list[str]) -> None:
    _, outcome, tests = row
    named = [name.partition("::")[::2] for name in re.findall(r"`([^`]+)`", tests)]
    assert outcome
    assert named
    assert [name for file, name in named if name not in functions_of(ROOT / "tests" / file)] == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tests/faults").glob("test_*.py")), ids=lambda file: file.name
)
def test_every_real_fault_is_in_the_table(file: Path) -> None:
    """Or it is one of those that make no fault."""
    table = " ".join(row[2] for row in ROWS)
    others = {
        "test_nothing_goes_wrong",
        "test_a_paused_experiment_leaves_the_host_and_comes_back",
        "test_a_request_is_answered_at_once",
        "test_a_container_that_cannot_start_says_why",
        "test_a_container_that_cannot_run_the_harness_says_why",
        "test_an_engine_that_cannot_be_reached_creates_nothing",
        "test_the_credentials_are_in_no_container_and_no_image",
    }
    tests = {name for name in functions_of(file) if name.rpartition("::")[2].startswith("test_")}
    assert {name for name in tests if f"{file.name}::{name}`" not in table} <= others
