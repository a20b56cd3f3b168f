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

    @pytest.fixture(autouse=True)
    def _quiet() -> None:
        tf.get_logger().setLevel("ERROR")

    @pytest.fixture
    def folder(tmp_path: Path) -> Folder:
        return Folder(tmp_path)
