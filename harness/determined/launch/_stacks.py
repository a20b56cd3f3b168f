"""Where each rank stands: asked by a signal, answered by the fault handler even when Python is stuck."""

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

ASK = signal.SIGRTMIN + 7  # used by nobody that we know
_ANSWER = 1.0  # seconds
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_MAIN = re.compile(r"^(?:Current thread|Thread) .*\(most recent call first\):$")
# Code in which a rank waits for the others: torch's collectives and backward passes, and our own exchange.
_WAITING = (
    "/torch/distributed/",
    "/torch/autograd/graph.py",
    "/torch/nn/parallel/",
    "/determined/_group.py",
    "/determined/_lockstep.py",
    "/determined/pytorch/_metrics.py",  # means over a window: the GPU has to finish it
)


def answer(environ: Mapping[str, str], rank: int) -> None:
    """Let this process tell where it stands whenever it is asked."""
    directory = environ.get(GROUP_DIR_VARIABLE)
    if directory:
        file = _file(Path(directory), rank).open("w", encoding="utf-8")  # stays open for as long as we live
        faulthandler.register(ASK, file=file, all_threads=True)
        _kept.append(file)


_kept: list[object] = []


def ask(directory: Path, pids: Mapping[int, int]) -> dict[int, list[str]]:
    """Ask all; return the frames of each one's main thread, innermost first. Who is stopped gives none."""
    for rank, pid in pids.items():
        if _file(directory, rank).exists():  # the signal would end a program that did not prepare for it
            with suppress(ProcessLookupError):
                os.kill(pid, ASK)
    time.sleep(_ANSWER)
    return {rank: _frames(_file(directory, rank)) for rank in pids}


def place(frames: list[str], context_dir: str) -> str:
    """`model_def.py:12 in train_batch`: the innermost frame of the user's own code, else of all code."""
    parsed = [match for frame in frames if (match := _FRAME.match(frame))]
    own = [m for m in parsed if context_dir and m["file"].startswith(f"{context_dir}/")]
    for match in own or parsed:
        file = match["file"].removeprefix(f"{context_dir}/")
        return f"{file}:{match['line']} in {match['name']}"
    return ""


def waits(frames: list[str]) -> bool:
    """Whether a rank stands where it waits for others."""
    match = _FRAME.match(frames[0]) if frames else None
    return match is not None and any(part in match["file"] for part in _WAITING)


def _file(directory: Path, rank: int) -> Path:
    return directory / f"stack-{rank}"


def _frames(file: Path) -> list[str]:
    """Of the main thread, which the fault handler writes last."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    heads = [number for number, line in enumerate(lines) if _MAIN.match(line)]
    if not heads:
        return []
    return [line for line in lines[heads[-1] + 1 :] if line.startswith("  File ")]
