from __future__ import annotations

import re
from pathlib import Path

import pytest

from detbuild import errors
from detbuild.errors import DetbuildError

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, DetbuildError)
}


def test_the_details_follow_the_cause_and_the_hint_is_apart() -> None:
    error = DetbuildError("the cause", hint="do this", details=("one", "two"))
    assert str(error) == "the cause\none\ntwo"
    assert error.hint == "do this"


@pytest.mark.parametrize("name", CLASSES)
def test_the_exit_codes_are_those_of_the_docs(name: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert [int(code) for code, names in rows if f"`{name}`" in names] == [CLASSES[name].exit_code]


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"DetbuildError", "DiskFullError"}))
def test_the_exit_codes_are_those_of_the_module_docstring(name: str) -> None:
    assert re.search(rf"\* {name} +{CLASSES[name].exit_code}\b", errors.__doc__ or "")
