"""Keras tests need TensorFlow; without it each module is skipped, and says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NoReturn

import pytest

TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


class Skipped(pytest.Module):
    def collect(self) -> NoReturn:
        pytest.skip("tensorflow is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return None if TENSORFLOW else Skipped.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # Keras' own, against numpy and Python
        if "harness/keras/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    from tests.unit.harness.keras.driving import Folder

    return Folder(tmp_path)
