from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import read_context, snapshot
from detbuild.errors import ContextError
from detbuild.image.needs import check_requirements, read_needs, unread_files
from detbuild.image.requirements import read_requirements

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.events import Warned


@pytest.mark.parametrize(
    ("program", "frameworks"),
    [
        ("import torch", {"torch"}),
        ("    import numpy as np, torch.nn as nn", {"torch"}),
        ("from torch.utils.data import DataLoader", {"torch"}),
        ("from determined import core, pytorch", {"torch"}),
        ("from determined import (\n    core,\n    pytorch,\n)", {"torch"}),
        ("from determined.keras import TFKerasTrial", {"tensorflow"}),
        ("import keras\nimport torch", {"tensorflow", "torch"}),
        ("print 'Python 2'\nimport tensorflow as tf", {"tensorflow"}),
        ("import determined", set()),
        ("import torchless  # import torch", set()),
        ("text = 'import torch'", set()),
    ],
)
def test_frameworks_follow_from_imports(program: str, frameworks: set[str]) -> None:
    assert read_needs(file_snapshot({"model_def.py": program.encode()})).frameworks == frameworks


def test_frameworks_follow_from_requirements_and_what_they_include() -> None:
    context = file_snapshot(
        {
            "requirements.txt": b"-r deps/base.txt\n",
            "deps/base.txt": b"-r ../more.txt",
            "more.txt": b"torch>=2",
        }
    )
    assert read_needs(context).frameworks == {"torch"}


def test_a_constraint_alone_asks_for_no_framework_and_limits_one_that_is_used() -> None:
    files = {"requirements.txt": b"-c limits.txt", "limits.txt": b"torch<2.10\ntensorflow<2.19"}
    assert not read_needs(file_snapshot(files)).frameworks
    needs = read_needs(file_snapshot({**files, "model_def.py": b"import torch"}))
    assert needs.frameworks == {"torch"}
    (pin,) = needs.pins("torch", python="3.11", machine="x86_64")
    assert str(pin.specifiers) == "<2.10"


def test_torchvision_comes_along_when_it_is_imported_but_not_required() -> None:
    program = b"import torchvision"
    needs = read_needs(file_snapshot({"model_def.py": program}))
    assert (needs.frameworks, needs.companions) == ({"torch"}, {"torchvision"})
    required = read_needs(file_snapshot({"model_def.py": program, "requirements.txt": b"torchvision"}))
    assert (required.frameworks, required.companions) == ({"torch"}, frozenset())


def test_a_file_too_long_for_a_program_is_not_read() -> None:
    assert not read_needs(file_snapshot({"data.py": b"import torch\n" + b"#" * (1 << 20)})).frameworks


def test_a_file_that_vanished_after_the_walk_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_def.py").write_text("import torch")
    context = snapshot(tmp_path)
    (tmp_path / "model_def.py").unlink()
    with pytest.raises(ContextError, match="cannot read model_def"):
        read_needs(context)


def test_neighbours_of_that_name_are_no_frameworks() -> None:
    program = b"from . import torch\nfrom .tensorflow import x\nfrom my.torch import y"
    assert not read_needs(file_snapshot({"model_def.py": program})).frameworks


def check(root: Path, files: dict[str, str], *, own_image: bool = False) -> tuple[Warned, ...]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    context, listing = read_context(root)
    return check_requirements(read_requirements(context), listing, own_image=own_image)


@pytest.mark.parametrize(
    ("files", "cause", "hint"),
    [
        (
            {"requirements.txt": "numpy\n-r reqs/base.txt", "deps/base.txt": ""},
            "requirements.txt:2: `reqs/base.txt` is not in the context",
            "did you mean `deps/base.txt`?",
        ),
        (
            {"requirements.txt": "-r base.txt", "base.txt": "", ".detignore": "# x\nbase*\n"},
            "requirements.txt:1: `base.txt` is excluded from the image by .detignore:2 (`base*`)",
            "remove that line of .detignore",
        ),
        (
            {
                "requirements.txt": "./w/x-1-py3-none-any.whl",
                "w/x-1-py3-none-any.whl": "",
                ".detignore": "w/",
            },
            (
                "requirements.txt:1: `./w/x-1-py3-none-any.whl` is excluded from the image by "
                ".detignore:1 (`w/`)"
            ),
            "remove that line of .detignore",
        ),
        (
            {"requirements.txt": "-e ../shop"},
            "requirements.txt:1: `../shop` is outside the context",
            "copy it into the context and use its path there",
        ),
        (
            {"requirements.txt": "-r a.txt", "a.txt": "-r gone.txt\n-e lib"},
            "a.txt:1: `gone.txt` is not in the context\na.txt:2: `lib` is not in the context",
            "add it to the context, or remove the line",
        ),
    ],
)
def test_what_pip_would_refuse_is_told_with_place_and_hint(
    tmp_path: Path, files: dict[str, str], cause: str, hint: str
) -> None:
    with pytest.raises(ContextError) as caught:
        check(tmp_path, files)
    assert (str(caught.value), caught.value.hint) == (cause, hint)


def test_an_absolute_path_may_be_in_an_image_of_ones_own(tmp_path: Path) -> None:
    files = {"requirements.txt": "/opt/wheels/x-1-py3-none-any.whl\n-r /opt/base.txt"}
    assert check(tmp_path, files, own_image=True) == ()
    with pytest.raises(ContextError, match=r"outside the context\n.*outside the context"):
        check(tmp_path, files)


def test_determined_itself_is_left_out_with_a_warning(tmp_path: Path) -> None:
    (warning,) = check(tmp_path, {"requirements.txt": "numpy\nDetermined==0.38.1\n"})
    assert warning.message.startswith("requirements.txt:2: `Determined==0.38.1` is not installed")
    assert warning.hint == "remove the line from requirements.txt"


def test_what_pip_would_pass_over_is_a_warning(tmp_path: Path) -> None:
    warnings = check(tmp_path, {"requirements.txt": "-f wheels\nnumpy=1.0\nnumpy --unheard-of\n"})
    assert [warning.message.partition(" (")[0] for warning in warnings] == [
        "requirements.txt:1: `wheels` is not in the context",
        "requirements.txt:2: not a valid requirement: numpy=1.0",
        "requirements.txt:3: pip rejects these options: no such option: --unheard-of",
    ]


def test_requirements_that_stay_out_are_told(tmp_path: Path) -> None:
    (warning,) = check(tmp_path, {"requirements.txt": "numpy", ".detignore": "*.txt"})
    assert warning.message == (
        "requirements.txt is excluded from the image by .detignore:1 (`*.txt`), "
        "so its packages are not installed"
    )


# --- what nothing reads yet ---------------------------------------------------------------------------------


def warned(files: dict[str, str]) -> list[tuple[str, str]]:
    context = file_snapshot({name: text.encode() for name, text in files.items()})
    return [(warning.message, warning.hint) for warning in unread_files(context, read_requirements(context))]


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("uv.lock", "version = 1", "run `uv export -o requirements.txt`"),
        ("poetry.lock", "", "run `poetry export -o requirements.txt`"),
        ("pdm.lock", "", "run `pdm export -o requirements.txt`"),
        ("Pipfile.lock", "{}", "run `pipenv requirements > requirements.txt`"),
        ("Pipfile", "[packages]\nnumpy = '*'\n", "list its packages in requirements.txt"),
        ("pyproject.toml", "[project]\ndependencies = [\n  'numpy',\n]\n", "write `.` in requirements.txt"),
        (
            "pyproject.toml",
            "[tool.poetry.dependencies]\npython = '^3.10'\nnumpy = '*'\n",
            "write `.` in requirements.txt",
        ),
        ("setup.py", "setup(install_requires=['numpy'])", "write `.` in requirements.txt"),
        ("setup.cfg", "[options]\ninstall_requires =\n  numpy\n", "write `.` in requirements.txt"),
        ("environment.yml", "name: x\ndependencies:\n- numpy\n", "list its packages in requirements.txt"),
        ("conda.yaml", "dependencies: [numpy]", "list its packages in requirements.txt"),
        ("apt.txt", "git\nffmpeg\n", "name an image that has these system packages"),
        ("packages.txt", "# system\nlibgl1\n", "name an image that has these system packages"),
        ("requirements/train.txt", "numpy", "write `-r requirements/train.txt` in requirements.txt"),
        ("requirements-gpu.txt", "numpy", "write `-r requirements-gpu.txt` in requirements.txt"),
    ],
)
def test_declared_dependencies_that_nothing_reads_are_named(name: str, text: str, hint: str) -> None:
    ((message, hint),) = warned({name: text})
    assert message == f"{name} is not read: its dependencies are not installed"
    assert hint.startswith(hint)


def test_several_are_named_in_one_line() -> None:
    ((message, _),) = warned({"uv.lock": "", "pyproject.toml": "dependencies = ['numpy']", "apt.txt": "git"})
    assert message == "uv.lock, pyproject.toml, apt.txt are not read: their dependencies are not installed"


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": "[project]\nname = 'x'\ndependencies = []\n[tool.ruff]\nline-length = 100\n"},
        {"pyproject.toml": "[tool.poetry.dependencies]\npython = '^3.10'\n\n[tool.ruff]\n"},
        {"setup.py": "from setuptools import setup\nsetup()\n"},
        {"setup.cfg": "[flake8]\nmax-line-length = 100\n"},
        {"environment.yml": "entrypoint: model_def:T\n"},
        {"requirements.txt": "numpy", "uv.lock": "", "requirements-gpu.txt": "x"},
        {
            "requirements-dev.txt": "pytest",
            "requirements/test.txt": "pytest",
            "requirements-docs.txt": "sphinx",
        },
        {"requirements.txt": "-e .", "setup.py": "setup(install_requires=['numpy'])"},
        {"sub/uv.lock": "", "apt.txt": "# nothing\n", "packages.txt": "0.5 1.2\n"},
    ],
)
def test_files_that_are_not_for_it_are_not_named(files: dict[str, str]) -> None:
    assert warned(files) == []
