"""Stacks of the ranks: requested by a signal, written by the fault handler even if Python is blocked."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from determined._ranks import GROUP_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK = signal.SIGRTMIN + 7  # not used by any known library
_ANSWER = 1.0  # seconds
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_MAIN = re.compile(r"^(?:Current thread|Thread) .*\(most recent call first\):$")
# Code in which a rank waits for the others: torch's collectives and backward passes, and our own group.
_WAITING = (
    "/torch/distributed/",
    "/torch/autograd/graph.py",
    "/torch/nn/parallel/",
    "/determined/_group.py",
    "/determined/_lockstep.py",
    "/determined/pytorch/_metrics.py",  # means over a window, which the GPU has to finish
)


def answer(environ: Mapping[str, str], rank: int) -> None:
    """Dump this process's stacks whenever the signal arrives."""
    directory = environ.get(GROUP_DIR_VARIABLE)
    if directory:
        file = _file(Path(directory), rank).open("w", encoding="utf-8")  # stays open until the process ends
        faulthandler.register(ASK, file=file, all_threads=True)
        _kept.append(file)


_kept: list[object] = []


def ask(directory: Path, pids: Mapping[int, int]) -> dict[int, list[str]]:
    """Return the frames of each rank's main thread, innermost first; none for a stopped one."""
    for rank, pid in pids.items():
        if _file(directory, rank).exists():  # the signal would kill a program without a handler
            with suppress(ProcessLookupError):
                os.kill(pid, ASK)
    time.sleep(_ANSWER)
    return {rank: _frames(_file(directory, rank)) for rank in pids}


def place(frames: list[str], context_dir: str) -> str:
    """Return the innermost frame, of the user's code if any, e.g. `model_def.py:12 in train_batch`."""
    parsed = [match for frame in frames if (match := _FRAME.match(frame))]
    own = [m for m in parsed if context_dir and m["file"].startswith(f"{context_dir}/")]
    for match in own or parsed:
        file = match["file"].removeprefix(f"{context_dir}/")
        return f"{file}:{match['line']} in {match['name']}"
    return ""


def waits(frames: list[str]) -> bool:
    """Whether a rank is waiting for others."""
    match = _FRAME.match(frames[0]) if frames else None
    return match is not None and any(part in match["file"] for part in _WAITING)


def _file(directory: Path, rank: int) -> Path:
    return directory / f"stack-{rank}"


def _frames(file: Path) -> list[str]:
    """Return the frames of the main thread, which the fault handler writes last."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    heads = [number for number, line in enumerate(lines) if _MAIN.match(line)]
    if not heads:
        return []
    return [line for line in lines[heads[-1] + 1 :] if line.startswith("  File ")]
