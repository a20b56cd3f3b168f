from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint import download as module
from detbuild.checkpoint.download import copy_content

if TYPE_CHECKING:
    from pathlib import Path

_SIZES = (0, 1, (1 << 20) + 7)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("refused_after", [0, 1, 1 << 20, None])
def test_content_is_copied_whatever_the_kernel_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, refused_after: int | None
) -> None:
    body = os.urandom(size)
    (tmp_path / "a").write_bytes(body)
    copied = os.copy_file_range

    def stingy(source: int, target: int, count: int) -> int:
        done = os.lseek(source, 0, os.SEEK_CUR)
        if refused_after is not None and done >= refused_after:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return copied(source, target, count if refused_after is None else min(count, refused_after - done))

    monkeypatch.setattr(module.os, "copy_file_range", stingy)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("xb") as target:
        copy_content(source.fileno(), target.fileno())
    assert (tmp_path / "b").read_bytes() == body
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino
