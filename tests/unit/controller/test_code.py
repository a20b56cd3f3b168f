from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.controller.code import download_code
from detbuild.errors import ConfigError, EngineError
from tests.faults.training import Rig, rig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tried(tmp_path: Path) -> Rig:
    return rig(tmp_path / "home", changes={"resources": {"slots_per_trial": 0}})


def test_the_code_is_not_copied_over_other_files(tried: Rig, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine").touch()
    with pytest.raises(ConfigError, match="already exists"):
        download_code(tried.home, tried.folder, tmp_path / "code", lambda: tried.engine)


def test_a_copy_of_the_code_that_fails_leaves_nothing(tried: Rig, tmp_path: Path) -> None:
    tried.engine.images.clear()
    with pytest.raises(EngineError, match="was removed"):
        download_code(tried.home, tried.folder, tmp_path / "code", lambda: tried.engine)
    assert not (tmp_path / "code").exists()
