"""Launches through the supervisor, as in a container: torch's launcher, and programs that need no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract.records import Ended, Exited, ExitReason, Record, Training, decode
from determined._contract.run_info import ENTRY, RUN_DIR_VARIABLE, RunInfo
from determined.launch import _launcher

pytest.importorskip("torch")
PATIENCE = 60.0

HEAD = """
import os, sys, time
from determined._run.launched import launch_directory
from determined._run.lockstep import Lockstep
from determined._contract.records import ExitReason, Stage
def train(trial_class, run):
    run.enter(Stage.TRAIN)
    rank, steps = run.group.rank, Lockstep(run.group, launch_directory())
    steps.begin(0)
    stop = steps.after_batch(run.asked_to_stop)
"""


@pytest.fixture
def toy(make_run: Callable[..., RunInfo]) -> Callable[..., RunInfo]:
    """A run of two processes whose training is the code, with `run`, `rank`, `steps` and `stop` at hand."""

    def make(code: str, **changes: object) -> RunInfo:
        info = make_run(**{"slots": 2, **changes})
        context = Path(info.context_dir)
        (context / "model_def.py").write_text(
            "from determined import Trial\nclass Toy(Trial):\n    _runner = 'toy_runner:train'\n"
        )
        body = "".join(f"    {line}\n" for line in code.splitlines())
        (context / "toy_runner.py").write_text(f"{HEAD}{body}    return ExitReason.COMPLETED\n")
        return info

    return make


def supervise(info: RunInfo, **environ: str) -> int:
    """Its exit code. The process is forked from none that has torch: the supervisor is what costs nothing."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, str(ENTRY)],
        {**os.environ, RUN_DIR_VARIABLE: info.run_dir, **environ},
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)],
    )
    if info.config.get("stop_after_output"):
        wait_for(lambda: b"training" in output(info))
        os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def records(info: RunInfo) -> list[Record]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def output(info: RunInfo) -> bytes:
    file = Path(info.run_dir) / "stdout.log"
    return file.read_bytes() if file.exists() else b""


def test_each_process_has_its_rank_and_its_lines_are_marked(toy: Callable[..., RunInfo]) -> None:
    info = toy(
        "print(run.group.allgather(rank), os.environ['WORLD_SIZE'], flush=True)\n"
        "run.report_training(1, {'rank': rank})\n"
        "assert run.should_stop() is False"
    )
    assert supervise(info) == 0
    assert sorted(output(info).splitlines()) == [b"[rank=0] [0, 1] 2", b"[rank=1] [0, 1] 2"]
    assert [record for record in records(info) if isinstance(record, Training)] == [Training(1, {"rank": 0})]
    assert records(info)[-2:] == [Ended(ExitReason.COMPLETED), Exited(0)]


ALONE = """
from determined._contract.records import ExitReason, Stage
def train(trial_class, run):
    run.enter(Stage.TRAIN)
    assert run.group.size == 1
    run.report_training(1, {"processes": 1})
    print("alone", flush=True)
    %s
    return ExitReason.COMPLETED
"""


@pytest.mark.parametrize(
    ("last", "ended"),
    [("", ExitReason.COMPLETED), ("raise RuntimeError('no luck')", ExitReason.ERROR)],
)
def test_rank_0_alone_trains_a_class_of_which_one_process_drives_all_devices(
    make_run: Callable[..., RunInfo], last: str, ended: ExitReason
) -> None:
    info = make_run(slots=2)
    context = Path(info.context_dir)
    (context / "toy_runner.py").write_text(ALONE % last)
    (context / "model_def.py").write_text(
        "from determined._trial.context import Trial\n"
        "class Toy(Trial):\n    _runner, _one_process = 'toy_runner:train', True\n"
    )
    assert (supervise(info) == 0) is (ended is ExitReason.COMPLETED)
    assert output(info).splitlines() == [b"[rank=0] alone"]
    found = records(info)
    assert [record for record in found if isinstance(record, Training)] == [Training(1, {"processes": 1})]
    assert [record.reason for record in found if isinstance(record, Ended)] == [ended]


def test_sigterm_stops_all_ranks_after_the_same_batch(toy: Callable[..., RunInfo]) -> None:
    info = toy(
        "done = 0\n"
        "while True:\n"
        "    done += 1\n"
        "    if stop(done): break\n"
        "    if done == 5: print('training', flush=True)\n"
        "    time.sleep(0.01 * (rank + 1))\n"
        "assert len(set(run.group.allgather(done))) == 1\n"
        "assert run.should_stop()\n"
        "return ExitReason.PREEMPTED",
        config={"stop_after_output": True},
    )
    assert supervise(info) == 0
    assert records(info)[-2:] == [Ended(ExitReason.PREEMPTED), Exited(0)]


@pytest.mark.parametrize(
    ("code", "message", "exit_code"),
    [
        (
            "print('last words', flush=True); os.kill(os.getpid(), 9)",
            "rank 1 of 2: was killed by SIGKILL",
            137,
        ),
        ("raise KeyError('odd')", "rank 1 of 2: KeyError: 'odd' (toy_runner.py:", 1),
        ("import determined; raise determined.InvalidHP('no')", "rank 1 of 2: InvalidHP: no", 0),
    ],
)
def test_a_rank_that_dies_ends_the_trial_with_its_own_words(
    toy: Callable[..., RunInfo], code: str, message: str, exit_code: int
) -> None:
    """The other one waits for it, for ever."""
    info = toy(f"if rank == 1:\n    {code}\nrun.group.allgather(None)")
    assert supervise(info) == exit_code
    *_, ended, exited = records(info)
    assert isinstance(ended, Ended)
    assert ended.message.startswith(message)
    assert ("last words" in ended.message) == ("SIGKI" in message)
    assert exited == Exited(exit_code)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("time.sleep(600)", "rank 1 of 2 hangs at toy_runner.py:"),
        ("os.kill(os.getpid(), 19)", "rank 1 of 2 hangs without an answer"),
    ],
)
def test_a_rank_that_hangs_ends_the_trial_and_is_named(
    toy: Callable[..., RunInfo], code: str, message: str
) -> None:
    info = toy(
        "with steps.watched():\n"
        "    for done in range(1, 9):\n"
        f"        if rank == 1 and done == 3: {code}\n"
        "        run.group.allgather(None)\n"
        "        stop(done)"
    )
    assert supervise(info, DETBUILD_HANG_TIMEOUT="8") == 1
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.message.startswith(message)


def test_without_torch_several_processes_are_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    launch = _launcher.Launch(command=("true",), size=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    failure = _launcher.run(launch, {})
    assert failure is not None
    assert (failure.ended.reason, failure.code) == (ExitReason.NOT_RETRYABLE, 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_work_is_done_is_ended_and_the_run_completed(
    toy: Callable[..., RunInfo], rank: int
) -> None:
    code = (
        f"import threading\nif rank == {rank}:\n"
        "    threading.Thread(target=time.sleep, args=(600,), name='uploader').start()"
    )
    info = toy(code, config={"exit_timeout": 1})
    assert supervise(info) == 0
    assert records(info)[-2:] == [Ended(ExitReason.COMPLETED), Exited(0)]
    said = (Path(info.run_dir) / "stderr.log").read_text()
    assert (
        f"[rank={rank}] detbuild: killed after 1 s (exit_timeout); the run was waiting for thread up" in said
    )


@pytest.mark.parametrize("kind", ["trial", "script"])
def test_no_record_follows_the_last_one_of_a_launch_that_failed(
    toy: Callable[..., RunInfo], kind: str
) -> None:
    """Rank 0 writes on while rank 1 dies; what it starts in a session of its own writes on too."""
    writer = (
        "import sys, time\nfrom pathlib import Path\nfrom determined._run.events import EventFile\n"
        "from determined._contract.records import Training\n"
        "events = EventFile(Path(sys.argv[1]) / 'events.jsonl', '7-0')\n"
        "while True:\n    events.append(Training(1, {}))\n    time.sleep(0.001)\n"
    )
    body = (
        "import subprocess\n"
        "if rank == 0:\n"
        "    command = [sys.executable, 'writer.py', os.environ['DETBUILD_RUN_DIR']]\n"
        "    subprocess.Popen(command, start_new_session=True)\n"
        "time.sleep(3)\n"
        "if rank == 1:\n    os._exit(3)\n"
        "time.sleep(600)"
    )
    info = toy(body, config={"exit_timeout": 1})
    context = Path(info.context_dir)
    (context / "writer.py").write_text(writer)
    if kind == "script":
        (context / "script.py").write_text(f"import os, sys, time\nrank = int(os.environ['RANK'])\n{body}\n")
        launcher = (sys.executable, "-m", "determined.launch.torch_distributed", "script.py")
        info = toy(body, entrypoint=launcher, config={"exit_timeout": 1})
    assert supervise(info) != 0
    found = records(info)
    assert isinstance(found[-1], Exited)
    assert sum(isinstance(record, Exited) for record in found) == 1
    assert any(isinstance(record, Training) for record in found)
    numbers = [decode(line).seq for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
