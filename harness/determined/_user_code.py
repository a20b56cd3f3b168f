"""The user's own code: its files in the context directory, its lines in a traceback."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_HARNESS = f"{Path(__file__).parent}{os.sep}"
_RELAYED = "\nOriginal Traceback (most recent call last):\n"
_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (\S+)$', re.MULTILINE)
_NAMED = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_TRACED = ("in user code:", "Graph execution error:")
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


def place_in(text: str, context_dir: Path) -> str:
    """The same of a traceback in the text of an error, as TensorFlow writes it; or ""."""
    found = [(_inside(Path(file), context_dir), line, name) for file, line, name in _NAMED.findall(text)]
    return next((f"{file}:{line} in {name}" for file, line, name in reversed(found) if file), "")


def without_trace(text: str) -> str:
    """The text of an error without the traceback that TensorFlow writes into it, in one line."""
    if not text.startswith(_TRACED):
        return text
    lines = text.splitlines()
    last = max((number for number, line in enumerate(lines) if _NAMED.search(line)), default=-1)
    skipped = 2 if text.startswith(_TRACED[0]) else 1  # the line of code, too
    return " ".join(line.strip() for line in lines[last + skipped :] if line.strip()) or text


def defined_at(thing: object) -> str:
    """`model_def.py:12`: where a function, method or class of the user's is defined, or its name."""
    found = inspect.unwrap(thing) if callable(thing) else type(thing)
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    if code is not None:
        return f"{_short(Path(code.co_filename))}:{code.co_firstlineno}"
    try:
        file, line = inspect.getsourcefile(found), inspect.getsourcelines(found)[1]
    except (OSError, TypeError):
        return getattr(found, "__qualname__", type(found).__name__)
    return f"{_short(Path(file or '?'))}:{line}"


def relayed_from(error: BaseException, context_dir: Path) -> str:
    """What a data loader's process raised, in one line with its place; "" for other errors.

    torch raises it again with that process's traceback as its text.
    """
    text = str(error)
    head, _, trace = text.partition(_RELAYED)
    if not trace or not head.startswith("Caught "):
        return ""
    lines = trace.rstrip().splitlines()
    last = next((number for number in reversed(range(len(lines))) if lines[number].startswith("  ")), -1)
    frames = [(Path(file), number, name) for file, number, name in _FRAME.findall(trace)]
    places = [f"{_inside(f, context_dir)}:{n} in {name}" for f, n, name in frames if _inside(f, context_dir)]
    where = head.removeprefix("Caught ").partition(" ")[2].rstrip(".")
    return f"{' '.join(lines[last + 1 :])} ({', '.join([*places[-1:], where])})"


def user_trace(error: BaseException, context_dir: Path) -> TracebackType | None:
    """The error's traceback from the first line of the user's own code on.

    When there is none, from the first line of a library; all of it when the harness itself fails.
    """
    if relayed_from(error, context_dir):
        return None  # its text is the traceback of where it happened
    frames = list(_frames(error.__traceback__))
    inner = (trace for trace in frames if _user_file(trace, context_dir))
    beyond = (trace for trace in frames if not _is_machinery(trace))
    only = None if isinstance(error, SyntaxError) else error.__traceback__  # that says itself where it is
    return next(inner, next(beyond, only))


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
    return _inside(Path(trace.tb_frame.f_code.co_filename), context_dir)


def _short(file: Path) -> Path:
    """Relative to the directory of the run, as in messages of Python itself, or as it is."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _inside(file: Path, context_dir: Path) -> Path | None:
    if file.is_relative_to(context_dir) and "site-packages" not in file.parts:
        return file.relative_to(context_dir)
    return None


def _is_machinery(trace: TracebackType) -> bool:
    """Whether the frame is the harness's own, or Python's on its way to a module."""
    file = trace.tb_frame.f_code.co_filename
    return file.startswith((_HARNESS, "<frozen importlib")) or Path(file).parent.name == "importlib"


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
