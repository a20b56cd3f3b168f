from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

import determined as det


def test_user_code_is_imported_for_the_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_of_a_checkpoint.py").write_text("from parts_of_it import SIZE")
    (tmp_path / "parts_of_it").mkdir()
    (tmp_path / "parts_of_it" / "__init__.py").write_text("SIZE = 3")
    other = ModuleType("parts_of_it")
    monkeypatch.setitem(sys.modules, "parts_of_it", other)
    path = list(sys.path)
    with det.import_from_path(tmp_path):
        import model_of_a_checkpoint
    assert model_of_a_checkpoint.SIZE == 3
    assert "model_of_a_checkpoint" not in sys.modules
    assert sys.modules["parts_of_it"] is other
    assert sys.path == path
    assert list(tmp_path.rglob("*.pyc")) == []


def test_everything_is_put_back_when_the_import_fails(tmp_path: Path) -> None:
    path = list(sys.path)
    (tmp_path / "broken_one.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError), det.import_from_path(str(tmp_path)):
        import broken_one  # noqa: F401
    assert sys.path == path
