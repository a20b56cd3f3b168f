from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import file_snapshot
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError
from detbuild.image.frameworks import read_needs

if TYPE_CHECKING:
    from pathlib import Path


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
