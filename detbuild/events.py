"""What happened, as frozen values: the library emits them; the command line, the store and tests read them.

The records of `events.jsonl`, which a run writes, are defined in the harness (`determined._records`) and pass
through here as `RunRecord`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined._records import Record


@dataclass(frozen=True, slots=True)
class Warned:
    """Something was accepted that has no effect, or looks like a slip."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Working:
    """A step takes longer than a moment; `what` says which, and how far it is."""

    what: str


@dataclass(frozen=True, slots=True)
class ContextPacked:
    files: int
    size: int  # bytes
    largest: tuple[tuple[str, int], ...]  # (path, bytes), largest first


@dataclass(frozen=True, slots=True)
class ImagePulling:
    reference: str
    detail: str


# What steps have around what they run: mounts, borrowed settings, and the mask of pip's output.
_NOISE: Final = re.compile(
    r"--mount=\S+|PIP_\w+=\S+|\. /run/secrets/\S+ &&|exec 4>&1 && exit \"\$\(\{ \{| 2>&1; echo \$\? >&3; \}.*"
)
ENDED: Final = "did not complete successfully: "  # BuildKit's words between a command and its exit code
_LONGEST_STEP: Final = 100  # characters


def short_step(name: str) -> str:
    """What a step of a build runs, without the mounts that every step has, short enough for one line."""
    short = " ".join(_NOISE.sub("", name).split())
    return short if len(short) <= _LONGEST_STEP else f"{short[:_LONGEST_STEP]}..."


@dataclass(frozen=True, slots=True)
class BuildStep:
    """A step of the Dockerfile. `seconds` is None while it runs."""

    name: str
    cached: bool
    seconds: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BuildOutput:
    step: str
    line: str


@dataclass(frozen=True, slots=True)
class ContextSent:
    """What travelled to the engine for this build."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class ImageReady:
    image: str  # sha256:...
    tag: str
    built: bool  # False: an image of the same inputs was there
    seconds: float


@dataclass(frozen=True, slots=True)
class ExperimentCreated:
    experiment_id: int
    folder: str


@dataclass(frozen=True, slots=True)
class ExperimentContinued:
    """It was at rest, and goes on."""

    experiment_id: int
    folder: str


@dataclass(frozen=True, slots=True)
class TrialQueued:
    trial_id: int
    why: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    trial_id: int
    run: int
    container: str
    gpu_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunRecord:
    trial_id: int
    run: int
    record: Record


@dataclass(frozen=True, slots=True)
class RunOutput:
    trial_id: int
    run: int
    stream: str  # "stdout" or "stderr"
    text: str  # one line without its end


@dataclass(frozen=True, slots=True)
class RunEnded:
    trial_id: int
    run: int
    exit_code: int | None
    why: str  # for people: class of failure, signal, what to do
    retry: bool


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """After its last run, if it had one; between two runs a trial may wait for its search."""

    trial_id: int
    state: str  # COMPLETED, CANCELED or ERROR
    why: str = ""


@dataclass(frozen=True, slots=True)
class SearchAdvanced:
    progress: float  # 0..1
    share: float  # what a trial adds to it when it ends; 0 where trials differ in that


@dataclass(frozen=True, slots=True)
class ExperimentEnded:
    experiment_id: int
    state: str  # COMPLETED, CANCELED or ERROR
    why: str


Event = (
    Warned
    | Working
    | ContextPacked
    | ImagePulling
    | BuildStep
    | BuildOutput
    | ContextSent
    | ImageReady
    | ExperimentCreated
    | ExperimentContinued
    | TrialQueued
    | RunStarted
    | RunRecord
    | RunOutput
    | RunEnded
    | TrialEnded
    | SearchAdvanced
    | ExperimentEnded
)
Emit = Callable[[Event], None]

_FIRST_WORD: Final = 1.0  # seconds of silence before a step that still runs is named
_NEXT_WORD: Final = 10.0


@contextmanager
def heartbeat(
    emit: Emit, what: Callable[[], str], *, first: float = _FIRST_WORD, again: float = _NEXT_WORD
) -> Iterator[None]:
    """Say what the block does while it takes long: `Working` after `first` seconds and every `again` seconds.

    Args:
        emit: called from a thread of its own, never after the block.
        what: the step and how far it is.
        first: seconds before the first event.
        again: seconds between two events.
    """
    ended = threading.Event()

    def beat() -> None:
        wait = first
        while not ended.wait(wait):
            with suppress(OSError):  # the reader has gone; the block itself notices that too
                emit(Working(what()))
            wait = again

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def ignore(_event: Event) -> None:
    """Hear of nothing: for callers that use the result alone."""
