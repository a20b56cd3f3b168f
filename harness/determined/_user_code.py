"""The user's own code: its files in the context directory, its lines in a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LOOKED_AT = 2000  # files of a context, so that one of many thousands costs no time


def place_of(error: BaseException, context_dir: Path) -> str:
    """`model_def.py:12 in train_batch`: the innermost line of the user's own code, or ""."""
    place = ""
    for trace in _frames(error.__traceback__):
        file = _user_file(trace, context_dir)
        if file:
            name = trace.tb_frame.f_code.co_name
            place = f"{file}:{trace.tb_lineno}" + ("" if name == "<module>" else f" in {name}")
    return place


def user_trace(error: BaseException, context_dir: Path) -> TracebackType | None:
    """The error's traceback from the first line of the user's own code on; all of it when there is none."""
    inner = (trace for trace in _frames(error.__traceback__) if _user_file(trace, context_dir))
    return next(inner, error.__traceback__)


def python_files(root: Path) -> Iterator[Path]:
    """Python files of the context, relative to it; not those in hidden folders or in a venv."""
    seen = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith((".", "__pycache__")) and f != "site-packages"
        )
        for name in sorted(files):
            if name.endswith(".py") and seen < _LOOKED_AT:
                seen += 1
                yield (Path(folder) / name).relative_to(root)


def _user_file(trace: TracebackType, context_dir: Path) -> Path | None:
    """The frame's file, relative to the context; None for a library's, even in a venv inside the context."""
    file = Path(trace.tb_frame.f_code.co_filename)
    if file.is_relative_to(context_dir) and "site-packages" not in file.parts:
        return file.relative_to(context_dir)
    return None


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
