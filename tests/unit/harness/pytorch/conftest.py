from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch

from tests.unit.harness.pytorch.driving import Folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    logging.getLogger("determined").setLevel(logging.ERROR)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
