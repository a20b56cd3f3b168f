"""The input of one run of a trial, written by detbuild as `run.json`, and how to start and end a run.

With it are the names of all files in a run's folder, the format of stored output, the exit codes for a host
that has no records, and how to recognize the home directory of detbuild.
"""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACT = 1  # version of `run.json` and the records: plus 1 for each change of a field or a kind
ENTRY = Path(__file__).resolve().parents[1] / "exec"  # `python3 <ENTRY>` starts the supervisor
RUN_DIR_VARIABLE = "DETBUILD_RUN_DIR"
CONTAINER_RUN_DIR = "/run/detbuild/run"  # where the folder of a run is mounted
# of a local run: the PID of its parent, and the seconds it may outlive that
PARENT_VARIABLE = "DETBUILD_PARENT"
KILL_ALL = signal.SIGRTMIN  # to a supervisor: kill all processes of the run
HOOK_FILE = "startup-hook.sh"  # in the context
HOST_HOOK = "startup_hook of the host's config"
EXIT_TIMEOUT = 300  # seconds; default of the config's `exit_timeout`
RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
SPARE_FILE = "spare_checkpoint.json"
STDOUT_FILE = "stdout.log"
STDERR_FILE = "stderr.log"
OUTPUT_LIMIT = 64 << 20  # bytes; default of `RunInfo.output_limit`
LEAST_OUTPUT = 4096  # bytes: a smaller limit has no space for head, mark and tail
CUT_MARK = re.compile(rb"\n\[detbuild: (\d+) bytes of output are left out here\]\n")
TENSORBOARD_DIR = "tensorboard"
_TRIAL = re.compile(r"[^\s:;&|<>$'\"`()=]*:[\w.\-]*")
_ID_FILE = "home.json"
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"[0-9a-f]{8}"\s*\}\s*')
_LONGEST = 200  # bytes


def private(path: str, flags: int) -> int:
    """Open a file for `open(opener=...)`; a new one is readable by its owner only."""
    return os.open(path, flags, 0o600)


@dataclass(frozen=True, slots=True)
class Length:
    """A length of training: a count of `batches`, `records` or `epochs`."""

    unit: str
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """One container, or one local process, of one trial. All paths are as the run sees them."""

    experiment_id: int
    trial_id: int
    run: int  # 0 for the first run of the trial, plus 1 for each restart
    trial_seed: int
    slots: int  # number of GPUs and worker processes; 0 trains on the CPU
    entrypoint: str | tuple[str, ...]
    run_dir: str
    context_dir: str
    context_name: str  # the directory's name at submission: modules may be prefixed with it
    checkpoint_dir: str  # contains one directory per checkpoint of the experiment, named by its UUID
    max_length: Length | None = None  # in total, not for this run; None: the script decides
    milestones: tuple[int, ...] = ()  # shorter lengths at which it validates too, in the unit of `max_length`
    hparams: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)  # the resolved experiment config
    test_mode: bool = False  # one batch, one validation, one checkpoint, one restore
    checkpoints: tuple[str, ...] = ()  # UUIDs to resume from, newest first: the first undamaged one is used
    warm_start: bool = False  # `checkpoints` are another trial's: load the weights, count from 0
    best_validation: float | None = None  # the searcher metric's best so far, for checkpoint_policy "best"
    last_failure: str = ""  # `failure` of the previous run, if it failed
    failed_alike: int = 0  # runs in a row with that failure
    gpu_ids: tuple[str, ...] = ()
    startup_hook: str = ""  # the host's script that runs before the entrypoint
    run_hooks: bool = True  # whether that one and startup-hook.sh run
    output_limit: int = OUTPUT_LIMIT  # bytes kept of each of stdout and stderr
    contract: int = CONTRACT  # version of this file

    @property
    def name(self) -> str:
        """The name of the run within its experiment: `<trial>-<run>`."""
        return f"{self.trial_id}-{self.run}"

    @property
    def exit_timeout(self) -> float:
        """Seconds that leftover processes and threads may delay the end of the run."""
        given = self.config.get("exit_timeout")
        return float(given) if isinstance(given, (int, float)) else EXIT_TIMEOUT

    def save(self, run_dir: Path) -> None:
        """Write `run.json` atomically."""
        text = json.dumps(asdict(self), sort_keys=True)
        temporary = run_dir / f".{RUN_FILE}.tmp"
        with open(temporary, "w", encoding="utf-8", opener=private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(run_dir / RUN_FILE)

    @classmethod
    def load(cls, run_dir: Path) -> RunInfo:
        """Read `run.json` of any version: fields of a newer one are left out."""
        raw = json.loads((run_dir / RUN_FILE).read_text(encoding="utf-8"))
        known = {f.name for f in fields(cls)}
        raw = {"contract": 1} | {key: value for key, value in raw.items() if key in known}
        for key in ("checkpoints", "gpu_ids", "milestones"):
            raw[key] = tuple(raw.get(key, ()))
        if isinstance(raw["entrypoint"], list):
            raw["entrypoint"] = tuple(raw["entrypoint"])
        if raw.get("max_length") is not None:
            raw["max_length"] = Length(**raw["max_length"])
        return cls(**raw)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> RunInfo | None:
        """Return None outside a run."""
        run_dir = environ.get(RUN_DIR_VARIABLE)
        return cls.load(Path(run_dir)) if run_dir else None


def kept_output(limit: int) -> int:
    """Return the bytes that a full log keeps of its head, and also of its newest output."""
    return max(limit, LEAST_OUTPUT) // 4


def cut_mark(dropped: int) -> bytes:
    """Return the line, found by `CUT_MARK`, between the head of a full log and its newest output."""
    return b"\n[detbuild: %d bytes of output are left out here]\n" % dropped


def names_trial(entrypoint: str) -> bool:
    """Whether an entrypoint has the form `module:Class`; the class need not exist."""
    return _TRIAL.fullmatch(entrypoint) is not None


class ExitCode(IntEnum):
    """A user's script may end with any other number; 128 + n means that signal n ended the worker."""

    DONE = 0  # completed, preempted, stopped or invalid_hp
    USER_ERROR = 1
    NOT_RETRYABLE = 2
    INFRASTRUCTURE = 74  # sysexits' EX_IOERR: disk full or failing, run folder missing or unreadable
    STARTED_AGAIN = 75  # sysexits' EX_TEMPFAIL: the run was started before; a run starts only once
    INTERRUPTED = 130  # Ctrl-C


def home_of(environ: Mapping[str, str]) -> Path:
    """Return `$DETBUILD_HOME`, else `$XDG_DATA_HOME/detbuild`, else `~/.local/share/detbuild`."""
    if environ.get("DETBUILD_HOME"):
        return Path(environ["DETBUILD_HOME"]).absolute()
    if environ.get("XDG_DATA_HOME"):
        return Path(environ["XDG_DATA_HOME"], "detbuild").absolute()
    return Path(environ.get("HOME") or "~").expanduser().absolute() / ".local" / "share" / "detbuild"


def is_home(directory: AnyStr | os.PathLike[AnyStr]) -> bool:
    """Whether it has a `home.json` with only an ID, and a folder of experiments."""
    place = os.fsencode(directory)
    try:
        with open(os.path.join(place, os.fsencode(_ID_FILE)), "rb") as file:  # noqa: PTH118, PTH123  (bytes)
            return _ID.fullmatch(file.read(_LONGEST)) is not None and os.path.isdir(  # noqa: PTH112
                os.path.join(place, b"experiments")  # noqa: PTH118
            )
    except OSError:
        return False
