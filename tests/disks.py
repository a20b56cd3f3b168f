"""File systems of a test's own."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def mounted_disk(place: Path, size: str) -> Iterator[Path]:
    """A new, empty one of this size, in memory."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a tiny disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
