from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.image.requirements import Requirement, applies, normalized, parse_requirements
from detbuild.image.versions import Specifier

FILE = """\
# a comment
--index-url https://user:secret@example.org/simple
--extra-index-url=https://example.org/more
-r base.txt
-c pins/limits.txt
Torch [extra] == 2.13.0 ; python_version >= "3.10"   # the framework
scikit_learn>=1.4,\\
    <2
numpy
pkg==1.0 --hash=sha256:abcdef
git+https://example.org/x.git#egg=x
transformers @ https://example.org/t.whl
"""


def test_projects_are_read_and_options_passed_over() -> None:
    read = parse_requirements(FILE)
    assert read.requirements == (
        Requirement(name="torch", specifiers=(Specifier("==", "2.13.0"),), marker='python_version >= "3.10"'),
        Requirement(name="scikit-learn", specifiers=(Specifier(">=", "1.4"), Specifier("<", "2"))),
        Requirement(name="numpy"),
        Requirement(name="pkg", specifiers=(Specifier("==", "1.0"),)),
        Requirement(name="transformers", direct=True),
    )
    assert read.includes == ("base.txt", "pins/limits.txt")
    assert not read.local


@pytest.mark.parametrize(
    "line",
    ["-e .", "--editable ./lib", "./wheels/x-1-py3-none-any.whl", "lib/pkg", "x.tar.gz", "file:///x.whl"],
)
def test_paths_of_the_context_are_noticed(line: str) -> None:
    assert parse_requirements(line).local


@pytest.mark.parametrize(
    "line", ["-e git+https://example.org/x.git#egg=x", "x @ https://example.org/x.whl", "x"]
)
def test_what_lies_elsewhere_is_not_a_path_of_the_context(line: str) -> None:
    assert not parse_requirements(line).local


@given(st.text())
def test_no_text_makes_the_reader_fail(text: str) -> None:
    parse_requirements(text)


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("", True),
        ('python_version < "3.10"', False),
        ("python_version >= '3.10' and sys_platform == 'linux'", True),
        ("sys_platform == 'darwin'", False),
        ("sys_platform != 'win32'", True),
        ("platform_system == 'Darwin' or platform_machine == 'x86_64'", True),
        ("platform_machine in 'aarch64 arm64'", False),
        ("extra == 'gpu'", True),
    ],
)
def test_markers_are_judged_for_a_linux_container(marker: str, *, expected: bool) -> None:
    assert applies(marker, python="3.11", machine="x86_64") is expected


def test_names_are_compared_as_pip_does() -> None:
    assert normalized("Tensor_Flow.CPU") == "tensor-flow-cpu"
