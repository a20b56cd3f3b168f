"""Events as frozen values: emitted by the library, read by the command line, the store and tests.

The records of `events.jsonl`, which a run writes, are defined in `determined._contract.records`; here
`RunRecord` wraps them.
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

    from determined._contract.records import Record


@dataclass(frozen=True, slots=True)
class Warned:
    """An accepted setting that has no effect or looks like a mistake."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Working:
    """A slow step; `what` has its name and progress."""

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


# Parts of a step around its command: mounts, host settings, and the masking of pip's output.
_NOISE: Final = re.compile(
    r"--mount=\S+|PIP_\w+=\S+|\. /run/secrets/\S+ &&|exec 4>&1 && exit \"\$\(\{ \{| 2>&1; echo \$\? >&3; \}.*"
)
COMMAND_FAILED: Final = (
    "did not complete successfully: "  # BuildKit's words between a command and its exit code
)
_LONGEST_STEP: Final = 100  # characters


def short_step(name: str) -> str:
    """Shorten the command of a build step to one line, without its mounts."""
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
    """The build context was sent to the engine."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class ImageReady:
    image: str  # sha256:...
    tag: str
    built: bool  # False: an existing image of the same inputs is used
    seconds: float


@dataclass(frozen=True, slots=True)
class ExperimentCreated:
    experiment_id: int
    folder: str


@dataclass(frozen=True, slots=True)
class ExperimentContinued:
    """An ended or paused experiment continues."""

    experiment_id: int
    folder: str


@dataclass(frozen=True, slots=True)
class TrialDelayed:
    """Its next step has to wait."""

    trial_id: int
    why: str
    running: bool = False  # else it is queued


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
    why: str  # for users: class of failure, signal, what to do
    retry: bool


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial ended, after its last run if it had any."""

    trial_id: int
    state: str  # COMPLETED, CANCELED or ERROR
    why: str = ""


@dataclass(frozen=True, slots=True)
class SearchAdvanced:
    progress: float  # 0..1
    share: float  # added to `progress` by each ended trial; 0 if that varies


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
    | TrialDelayed
    | RunStarted
    | RunRecord
    | RunOutput
    | RunEnded
    | TrialEnded
    | SearchAdvanced
    | ExperimentEnded
)
Emit = Callable[[Event], None]

_FIRST_BEAT: Final = 1.0  # seconds
_NEXT_BEAT: Final = 10.0


@contextmanager
def heartbeat(
    emit: Emit, what: Callable[[], str], *, first: float = _FIRST_BEAT, again: float = _NEXT_BEAT
) -> Iterator[None]:
    """Emit `Working` while the block runs: after `first` seconds, then every `again` seconds.

    Args:
        emit: called from a background thread, never after the block.
        what: returns the step and its progress.
        first: seconds before the first event.
        again: seconds between events.
    """
    ended = threading.Event()

    def beat() -> None:
        wait = first
        while not ended.wait(wait):
            with suppress(OSError):  # the reader is gone; the block itself notices
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
    """Discard an event: for callers that only use the result."""
