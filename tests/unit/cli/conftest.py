from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes import FakeEngine
from tests.unit.cli.shells import Shell

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    return Shell(tmp_path / "home", FakeEngine(), environ, capfdbinary.readouterr)
