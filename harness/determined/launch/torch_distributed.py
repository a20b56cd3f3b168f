"""Starts one process for each slot: `python3 -m determined.launch.torch_distributed python3 train.py`.

    python3 -m determined.launch.torch_distributed [OPTIONS OF torchrun --] PROGRAM ARGS...
    python3 -m determined.launch.torch_distributed [OPTIONS OF torchrun --] --trial MODULE:CLASS

The processes connect by `torch.distributed.init_process_group()`, `pytorch.init()` or
`core.DistributedContext.from_torch_distributed()`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.records import ExitReason
from determined._contract.run_info import ENTRY, EVENTS_FILE, ExitCode, RunInfo
from determined._run.events import EventFile
from determined._run.processes import alone_environ
from determined.exec import worker
from determined.launch._launcher import Launch, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from determined.launch._launcher import Failure

_PROCESSES = re.compile(r"--nproc[-_]per[-_]node(?:=(?P<count>\d+))?")
_USAGE = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]


@dataclass(frozen=True, slots=True)
class Request:
    """The parsed command line."""

    options: tuple[str, ...]  # of torchrun
    command: tuple[str, ...]
    is_trial: bool = False

    @property
    def processes(self) -> int | None:
        """The number of processes in the options."""
        for option, following in zip(self.options, (*self.options[1:], ""), strict=False):
            match = _PROCESSES.fullmatch(option)
            count = (match["count"] or following) if match else ""
            if count.isdigit():
                return int(count)
        return None


def parse(argv: Sequence[str]) -> Request | None:
    """Parse the command line; return None if it has no program."""
    options: Sequence[str] = ()
    if "--" in argv and argv[0].startswith("-") and argv[0] != "--trial":
        at = argv.index("--")
        options, argv = argv[:at], argv[at + 1 :]
    if argv[:1] == ["--trial"] and len(argv) == 2:  # noqa: PLR2004  (the option and its value)
        return Request(tuple(options), (sys.executable, str(ENTRY), "worker", argv[1]), is_trial=True)
    if not argv or argv[0].startswith("-"):
        return None
    is_script = argv[0].endswith(".py") and not os.access(argv[0], os.X_OK)
    return Request(tuple(options), ((sys.executable,) if is_script else ()) + tuple(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Start the ranks; return the exit code of the first one that failed, else 0."""
    request = parse(list(sys.argv[1:] if argv is None else argv))
    if request is None:
        sys.stderr.write(f"usage:\n{_USAGE}\n")
        return ExitCode.NOT_RETRYABLE
    info = RunInfo.from_environ(os.environ)
    slots = info.slots if info else 1
    if slots <= 1 and not request.options:
        return _become(request.command)
    launch = Launch(
        command=request.command,
        size=request.processes or max(1, slots),
        options=request.options,
        is_trial=request.is_trial,
        context_dir=info.context_dir if info else str(Path.cwd()),
    )
    return conclude(run(launch, os.environ), info)


def run_worker() -> int:
    """Train the trial class of the run, with one process per slot.

    Without torch it is a class of another framework, in which one process uses all devices. With both
    installed, only rank 0 trains such a class.
    """
    info = RunInfo.from_environ(os.environ)
    assert info is not None, "the supervisor sets the run folder"
    if importlib.util.find_spec("torch") is None:
        return worker.main()
    launch = Launch(
        command=(sys.executable, str(ENTRY), "worker"),
        size=info.slots,
        is_trial=True,
        context_dir=info.context_dir,
    )
    return conclude(run(launch, os.environ), info)


def conclude(failure: Failure | None, info: RunInfo | None) -> int:
    """Record and print the failure of a launch; return the exit code."""
    if failure is None:
        return ExitCode.DONE
    ended = failure.ended
    if ended.reason is ExitReason.PREEMPTED:
        return failure.code
    if ended.reason.failed and not failure.reported:
        sys.stderr.write(f"error: {ended.message}\n" + (f"  hint: {ended.hint}\n" if ended.hint else ""))
    if info is not None:
        events = EventFile(Path(info.run_dir) / EVENTS_FILE, info.name)
        events.append(ended)
        events.close()
    return failure.code


def _become(command: Sequence[str]) -> int:
    """Replace this process by the only rank's program, with the variables that a launcher sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        os.execvpe(command[0], list(command), {**alone_environ(port), **os.environ})  # noqa: S606  (no shell is meant)
    except OSError as error:
        sys.stderr.write(f"error: cannot start {command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main())
