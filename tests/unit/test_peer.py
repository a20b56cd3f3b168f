from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detbuild.errors import ConfigError
from detbuild.peer import check_determined


def test_our_own_package_passes() -> None:
    check_determined()


def test_the_other_package_of_that_name_is_told_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "determined").mkdir()
    (tmp_path / "determined" / "__init__.py").write_text("__version__ = '0.38.1'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "determined"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="which is not part of detbuild") as caught:
        check_determined()
    assert "pip uninstall determined" in caught.value.hint
    del sys.modules["determined"]
