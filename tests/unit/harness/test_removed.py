from __future__ import annotations

import importlib
import sys

import pytest

from determined import _removed
from determined._contract.errors import RemovedError

NAMES = sorted(_removed._INSTEAD)


@pytest.mark.parametrize("name", NAMES)
def test_a_removed_part_names_what_to_use_instead(name: str) -> None:
    with pytest.raises(RemovedError, match=f"^detbuild does not support {name}") as refused:
        importlib.import_module(f"{name}.anything")
    assert refused.value.hint == _removed._INSTEAD[name]
    assert f"{name}.anything" not in sys.modules


def test_what_was_never_there_is_not_found_as_usual() -> None:
    for name in ("determined.never", "determined_commonplace", "model_hubs"):
        with pytest.raises(ModuleNotFoundError, match=name):
            importlib.import_module(name)


def test_a_module_of_the_user_with_such_a_name_is_the_users(tmp_path, monkeypatch) -> None:
    (tmp_path / "model_hub.py").write_text("mine = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert importlib.import_module("model_hub").mine == 1
    finally:
        sys.modules.pop("model_hub", None)


def test_it_is_asked_once_however_often_it_is_installed() -> None:
    _removed.report_removed_modules()
    _removed.report_removed_modules()
    assert sum(isinstance(one, _removed._RemovedModules) for one in sys.meta_path) == 1
