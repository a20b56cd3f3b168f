from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

try:
    import tensorflow as tf
except ImportError:
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.unit.harness.keras.driving import Folder

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        for item in items:  # Keras' own, against numpy and Python
            if "harness/keras/" in item.path.as_posix():
                item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))

    @pytest.fixture(autouse=True)
    def _quiet() -> None:
        tf.get_logger().setLevel("ERROR")

    @pytest.fixture
    def folder(tmp_path: Path) -> Folder:
        return Folder(tmp_path)
