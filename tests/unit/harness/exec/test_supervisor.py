"""The supervisor as a process of its own, as it is PID 1 of a container and the parent of a local run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from determined._contract import checkpoints
from determined._contract.records import (
    Checkpoint,
    Ended,
    Exited,
    ExitReason,
    Record,
    StageEntered,
    Started,
    decode,
)
from determined._contract.run_info import (
    ENTRY,
    KILL_ALL,
    PARENT_VARIABLE,
    RUN_DIR_VARIABLE,
    ExitCode,
    Length,
    RunInfo,
)
from determined._version import __version__

PATIENCE = 20.0  # seconds; what takes longer hangs


def start(info: RunInfo, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, RUN_DIR_VARIABLE: info.run_dir}
    return subprocess.Popen(
        [sys.executable, ENTRY],
        env=environment,
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
    )


def supervise(info: RunInfo) -> int:
    return start(info).wait(PATIENCE)


def records(info: RunInfo) -> list[Record]:
    lines = [decode(line) for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    return [line.record for line in lines]


def output(info: RunInfo, stream: str = "stdout") -> bytes:
    file = Path(info.run_dir) / f"{stream}.log"
    return file.read_bytes() if file.exists() else b""


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether it runs: what has ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def python(code: str) -> Sequence[str]:
    return (sys.executable, "-c", code)


@pytest.fixture
def toy(make_run: Callable[..., RunInfo]) -> Callable[..., RunInfo]:
    """A run of a trial class whose training is the given code, with `run` at hand."""

    def make(code: str, **changes: object) -> RunInfo:
        info = make_run(**changes)
        context = Path(info.context_dir)
        (context / "model_def.py").write_text(
            "from determined import Trial\nclass Toy(Trial):\n    _runner = 'toy_runner:train'\n"
        )
        body = "".join(f"    {line}\n" for line in code.splitlines())
        (context / "toy_runner.py").write_text(
            "import os, sys, time\nfrom determined._contract.records import ExitReason, Stage\n"
            f"def train(trial_class, run):\n{body}    return ExitReason.COMPLETED\n"
        )
        return info

    return make


def test_a_trial_that_completes(toy: Callable[..., RunInfo]) -> None:
    info = toy("run.enter(Stage.TRAIN)")
    process = start(info)
    assert process.wait(PATIENCE) == ExitCode.DONE
    started, *rest = records(info)
    assert started == Started(process.pid, sys.version.split()[0], __version__)
    assert [type(record) for record in rest] == [StageEntered, StageEntered, Ended, Exited]
    assert rest[-2:] == [Ended(ExitReason.COMPLETED), Exited(0)]


@pytest.mark.parametrize(("debug", "said"), [(False, ["INFO"]), (True, ["DEBUG", "INFO"])])
def test_what_a_trial_logs_is_in_its_output(
    toy: Callable[..., RunInfo], debug: bool, said: list[str]
) -> None:
    info = toy("import logging\nlogging.debug('x')\nlogging.info('x')", config={"debug": debug})
    assert start(info).wait(PATIENCE) == ExitCode.DONE
    lines = (Path(info.run_dir) / "stderr.log").read_text().splitlines()
    assert [re.sub(r"\d+", "N", line) for line in lines] == [f"{level}: [N] root: x" for level in said]


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        ("raise KeyError('big')", ExitReason.ERROR, ExitCode.USER_ERROR),
        ("import determined; raise determined.InvalidHP('no')", ExitReason.INVALID_HP, ExitCode.DONE),
        ("import nonsense", ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE),
        ("sys.exit(0)", ExitReason.ERROR, ExitCode.USER_ERROR),
        ("os._exit(0)", ExitReason.ERROR, ExitCode.USER_ERROR),
    ],
)
def test_every_other_end_says_why(
    toy: Callable[..., RunInfo], code: str, reason: ExitReason, exit_code: ExitCode
) -> None:
    info = toy(code)
    assert supervise(info) == exit_code
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.reason == reason


@pytest.mark.parametrize("debug", [True, False])
def test_debug_shows_what_loggers_say(toy: Callable[..., RunInfo], debug: bool) -> None:
    info = toy("import logging; logging.getLogger('mine').debug('here')", config={"debug": debug})
    assert supervise(info) == ExitCode.DONE
    assert (b"mine: here" in output(info, "stderr")) is debug


@pytest.mark.parametrize("debug", [True, False])
def test_debug_shows_where_a_trial_stands(make_run: Callable[..., RunInfo], debug: bool) -> None:
    info = make_run(config={"debug": debug})
    code = (
        "import sys, time; from pathlib import Path; from determined._contract.run_info import RunInfo\n"
        "from determined.exec.worker import show_stacks\n"
        "show_stacks(RunInfo.load(Path(sys.argv[1])), every=0.05); time.sleep(0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, info.run_dir], capture_output=True, timeout=PATIENCE, check=True
    )
    assert (b'File "<string>", line 3 in <module>' in done.stderr) is debug


def test_what_cannot_be_loaded_is_hopeless(toy: Callable[..., RunInfo]) -> None:
    info = toy("", entrypoint="model_dfe:Toy")
    assert supervise(info) == ExitCode.NOT_RETRYABLE
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.hint) == (ExitReason.NOT_RETRYABLE, "did you mean `model_def`?")
    assert output(info, "stderr").decode().endswith(f"{ended.message}\n  hint: {ended.hint}\n")


def test_the_file_system_of_the_context_cannot_get_in_the_way(toy: Callable[..., RunInfo]) -> None:
    info = toy("")
    for name in ("json", "signal", "selectors", "subprocess", "sitecustomize", "typing"):
        (Path(info.context_dir) / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    process = start(info, cwd=info.context_dir)
    assert process.wait(PATIENCE) == ExitCode.DONE


def test_output_is_kept_byte_for_byte(make_run: Callable[..., RunInfo]) -> None:
    said = b"\xff\xfe\x00" + b"10%\r100%\r\n" + b"x" * 40_000 + b"\n\x1b[31mred" + b"no newline"
    code = f"import sys; sys.stdout.buffer.write({said!r}); sys.stderr.buffer.write({said[::-1]!r})"
    info = make_run(entrypoint=python(code))
    process = start(info, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown = process.communicate(timeout=PATIENCE)
    assert (output(info), output(info, "stderr")) == (said, said[::-1])
    assert shown == (said, said[::-1])


def test_output_is_capped(make_run: Callable[..., RunInfo]) -> None:
    code = "for number in range(200_000): print(number)"
    info = make_run(entrypoint=python(code), output_limit=100_000)
    assert supervise(info) == 0
    said = output(info)
    assert len(said) <= 100_000
    assert said.startswith(b"0\n1\n2\n")
    assert said.endswith(b"199998\n199999\n")
    assert b"bytes of output are left out here]" in said


def test_an_absent_reader_of_the_supervisor_s_own_output_stops_nobody(
    make_run: Callable[..., RunInfo],
) -> None:
    info = make_run(entrypoint=python("print('x' * 3_000_000, flush=True)"))
    reader, writer = os.pipe()
    process = start(info, stdout=writer)
    assert process.wait(PATIENCE) == 0
    assert len(output(info)) == 3_000_001
    os.close(reader)
    os.close(writer)


def test_sigterm_lets_a_trial_finish_its_batch(toy: Callable[..., RunInfo]) -> None:
    info = toy(
        "print('training', flush=True)\n"
        "while not run.should_stop(): time.sleep(0.01)\n"
        "return ExitReason.PREEMPTED"
    )
    process = start(info)
    wait_for(lambda: b"training" in output(info))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == ExitCode.DONE
    assert records(info)[-2:] == [Ended(ExitReason.PREEMPTED), Exited(0)]


def test_sigterm_does_not_reach_the_loader_processes_of_a_trial(toy: Callable[..., RunInfo]) -> None:
    info = toy(
        "import subprocess\n"
        "loader = subprocess.Popen(['sleep', '60'])\n"
        "print('training', flush=True)\n"
        "while not run.should_stop(): time.sleep(0.01)\n"
        "time.sleep(0.1)\n"
        "assert loader.poll() is None\n"
        "loader.kill()\n"
        "loader.wait()"
    )
    process = start(info)
    wait_for(lambda: b"training" in output(info))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == ExitCode.DONE


def test_sigterm_reaches_the_program_behind_a_shell(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="echo begin; sleep 60; echo end")
    process = start(info)
    wait_for(lambda: b"begin" in output(info))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    ended, exited = records(info)[-2:]
    assert isinstance(ended, Ended)
    assert (ended.reason, exited) == (ExitReason.PREEMPTED, Exited(None, "SIGTERM"))


def test_sigterm_before_the_program_listens_is_no_fault_of_its_own(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint=python("import time; print('ready', flush=True); time.sleep(60)"))
    process = start(info)
    wait_for(lambda: b"ready" in output(info))
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE)
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.reason is ExitReason.PREEMPTED


def test_a_program_that_ends_itself_by_sigterm_was_not_asked_to(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint=python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"))
    start(info).wait(PATIENCE)
    assert records(info)[1:] == [Exited(None, "SIGTERM")]


def test_a_script_that_leaves_well_after_sigterm_is_preempted(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    info = make_run(entrypoint=python(code))
    process = start(info)
    wait_for(lambda: b"ready" in output(info))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert records(info)[-2] == Ended(ExitReason.PREEMPTED)


def test_usr1_shows_where_the_trial_is(toy: Callable[..., RunInfo]) -> None:
    info = toy("print('training', flush=True)\ntime.sleep(60)")
    process = start(info)
    wait_for(lambda: b"training" in output(info))
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: b"toy_runner.py" in output(info, "stderr"))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == ExitCode.INTERRUPTED
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.message == "interrupted by SIGINT (toy_runner.py:5 in train)"


def test_a_worker_that_is_killed_has_no_last_word(toy: Callable[..., RunInfo]) -> None:
    info = toy("run.report_training(1, {'loss': 0.5})\nos.kill(os.getpid(), 9)")
    assert supervise(info) == 128 + signal.SIGKILL
    assert [record.kind for record in records(info)] == ["started", "stage", "training", "exited"]
    assert records(info)[-1] == Exited(None, "SIGKILL")


def test_a_supervisor_that_is_killed_takes_its_worker_along(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint=python("import os, time; print(os.getpid(), flush=True); time.sleep(60)"))
    process = start(info)
    wait_for(lambda: output(info).endswith(b"\n"))
    process.kill()
    process.wait(PATIENCE)
    worker = Path("/proc", output(info).decode().strip(), "stat")
    wait_for(lambda: not worker.exists() or worker.read_text().rpartition(")")[2].split()[0] == "Z")


def test_nothing_outlives_the_run_and_orphans_are_reaped(make_run: Callable[..., RunInfo]) -> None:
    left_behind = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    info = make_run(entrypoint=python(left_behind), config={"exit_timeout": 2})
    assert supervise(info) == 0
    assert not alive(int(output(info)))
    assert records(info)[1:] == [Ended(ExitReason.COMPLETED), Exited(0)]
    said = output(info, "stderr").decode()
    assert re.search(r"^detbuild: process \d+ \(sleep 60\) outlived the training: killed", said, re.MULTILINE)


def test_what_a_hook_left_running_does_not_keep_the_run(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="echo done")
    (Path(info.context_dir) / "startup-hook.sh").write_text("setsid sleep 60 &\n")
    assert supervise(info) == 0  # far sooner than exit_timeout
    assert b"(sleep 60) outlived the training: killed" in output(info, "stderr")


def test_a_late_upload_of_a_child_process_is_waited_for_and_named(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="(sleep 11; echo uploaded) & echo done")
    assert start(info).wait(4 * PATIENCE) == 0
    assert output(info) == b"done\nuploaded\n"
    assert b"outlived the training: waiting at most 300 s (exit_timeout)" in output(info, "stderr")


HOLDERS = {
    "a thread": (
        "threading.Thread(target=time.sleep, args=(600,), name='uploader').start()",
        "thread uploader",
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(time.sleep, 600)",
        "thread ThreadPoolExecutor-0_0",
    ),
    "an exit handler": ("import atexit\natexit.register(lambda: time.sleep(600))", "an exit handler"),
    "a child process": (
        "import multiprocessing\nmultiprocessing.Process(target=time.sleep, args=(600,)).start()",
        "process ",
    ),
}


@pytest.mark.parametrize("kind", HOLDERS)
@pytest.mark.parametrize("entrypoint", ["model_def:Toy", "script"])
def test_what_holds_a_run_whose_work_is_done_is_named_and_ended(
    toy: Callable[..., RunInfo], kind: str, entrypoint: str
) -> None:
    code, named = HOLDERS[kind]
    script = f"import threading, time\nfrom determined import core\nwith core.init():\n    pass\n{code}\n"
    body = f"import threading\n{code}"
    info = toy(
        body,
        entrypoint=python(script) if entrypoint == "script" else entrypoint,
        config={"exit_timeout": 1},
    )
    assert start(info).wait(4 * PATIENCE) == 0
    assert records(info)[-2:] == [Ended(ExitReason.COMPLETED), Exited(0)]
    said = output(info, "stderr").decode()
    assert re.search(rf"killed after 1 s \(exit_timeout\); the run was waiting for .*{named}", said)


def test_a_process_in_which_no_python_runs_any_more_is_ended_too(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import ctypes\nfrom determined import core\nwith core.init() as context:\n"
        "    next(context.searcher.operations()).report_completed(1.0)\n"
        "ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p))"
    )
    info = make_run(entrypoint=python(code), config={"exit_timeout": 1}, max_length=Length("batches", 1))
    assert start(info).wait(4 * PATIENCE) == 128 + signal.SIGALRM
    assert records(info)[-1] == Exited(None, "SIGALRM")


def test_an_error_is_no_success_because_a_thread_is_left(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import threading, time\nfrom determined import core\nwith core.init():\n    pass\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\nraise KeyError('big')"
    )
    info = make_run(entrypoint=python(code), config={"exit_timeout": 1})
    assert supervise(info) == 1
    assert records(info)[-1] == Exited(1)


def test_a_script_that_works_on_after_its_training_is_not_ended(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import time\nfrom determined import core\nwith core.init():\n    pass\n"
        "time.sleep(4)\nprint('exported', flush=True)"
    )
    info = make_run(entrypoint=python(code), config={"exit_timeout": 0})
    assert supervise(info) == 0
    assert output(info) == b"exported\n"


def test_a_run_starts_once(toy: Callable[..., RunInfo]) -> None:
    info = toy("print('trained', flush=True)")
    assert supervise(info) == ExitCode.DONE
    before = (records(info), output(info))
    second = start(info, stderr=subprocess.PIPE)
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == ExitCode.STARTED_AGAIN
    assert said.startswith(b"error: run 7-0 was started before")
    assert (records(info), output(info)) == before


def test_a_run_whose_supervisor_died_before_its_first_record_has_begun(toy: Callable[..., RunInfo]) -> None:
    info = toy("")
    (Path(info.run_dir) / "events.jsonl").touch()
    assert supervise(info) == ExitCode.STARTED_AGAIN
    assert records(info) == []


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_whatever_a_run_made_of_its_events_it_does_not_start_again(
    toy: Callable[..., RunInfo], kind: str
) -> None:
    info = toy("")
    events = Path(info.run_dir) / "events.jsonl"
    {
        "symlink": lambda: events.symlink_to("/nowhere"),
        "fifo": lambda: os.mkfifo(events),
        "directory": events.mkdir,
    }[kind]()
    assert supervise(info) == ExitCode.STARTED_AGAIN


WRITER = """
import signal, sys, time
from determined._run.events import EventFile
from determined._contract.records import Training
from pathlib import Path
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
events = EventFile(Path(sys.argv[1]) / "events.jsonl", "7-0")
batch = 0
while True:
    batch += 1
    events.append(Training(batch, {"loss": 1.0}))
    time.sleep(0.001)
"""


@pytest.mark.parametrize("how", ["killed", "left"])
def test_the_last_record_is_the_last_and_none_is_lost(make_run: Callable[..., RunInfo], how: str) -> None:
    """The shell is gone, and what it started writes on; in a session of its own where the shell has left."""
    setsid, then = "", "wait"
    if how == "left":
        setsid, then = "setsid ", "until grep -q training events.jsonl; do sleep 0.1; done"
    info = make_run()
    writer = Path(info.context_dir) / "writer.py"
    writer.write_text(WRITER)
    command = f"cd {info.run_dir}; {setsid}{sys.executable} {writer} {info.run_dir} & echo $$ $!; {then}"
    info = make_run(entrypoint=command, config={"exit_timeout": 0})
    process = start(info)
    events = Path(info.run_dir) / "events.jsonl"
    wait_for(lambda: events.exists() and events.read_bytes().count(b'"training"') > 0)
    shell, orphan = map(int, output(info).split())
    if how == "killed":
        os.kill(shell, signal.SIGKILL)
    process.wait(PATIENCE)
    assert not alive(orphan)
    found = records(info)  # numbered without a gap, each number once
    assert [type(record) for record in found].count(Exited) == 1
    assert isinstance(found[-1], Exited)


@pytest.mark.parametrize("how", ["killed", "asked"])
def test_a_run_ends_with_its_parent(make_run: Callable[..., RunInfo], how: str) -> None:
    """Deaf processes too, and those in sessions of their own."""
    deaf = "trap '' TERM INT HUP; echo $$; while :; do sleep 1; done"
    code = (
        "import os, signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen(['sh', '-c', {deaf!r}], start_new_session=True)\n"
        "print(os.getpid(), flush=True)\ntime.sleep(600)"
    )
    info = make_run(entrypoint=python(code))
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, {str(ENTRY)!r}], start_new_session=True,\n"
        f"    env={{**os.environ, {RUN_DIR_VARIABLE!r}: {info.run_dir!r}, "
        f"{PARENT_VARIABLE!r}: f'{{os.getpid()}}:0.5'}})\n"
        "print(child.pid, flush=True)\nchild.wait()"
    )
    detbuild = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert detbuild.stdout is not None
    with detbuild.stdout:
        supervisor = int(detbuild.stdout.readline())
    wait_for(lambda: output(info).count(b"\n") == 2)
    pids = [supervisor, *map(int, output(info).split())]
    if how == "killed":
        detbuild.kill()
    else:
        os.kill(supervisor, KILL_ALL)
    detbuild.wait(PATIENCE)
    wait_for(lambda: not any(map(alive, pids)))
    assert records(info)[-1] == Exited(None, "SIGKILL")


def test_a_process_that_ends_soon_after_the_worker_is_waited_for(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="(sleep 0.5; echo flushed) & echo done")
    assert supervise(info) == 0
    assert output(info) == b"done\nflushed\n"


def test_a_script_s_exit_code_is_the_run_s(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="exit 7")
    assert supervise(info) == 7
    assert records(info)[1:] == [Exited(7)]


def test_a_script_that_succeeds_has_completed(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="echo $DET_TRIAL_ID")
    assert supervise(info) == 0
    assert records(info)[1:] == [Ended(ExitReason.COMPLETED), Exited(0)]
    assert output(info) == b"7\n"


def test_a_list_is_run_as_it_is(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint=("echo", "$HOME", "a b;"))
    assert supervise(info) == 0
    assert output(info) == b"$HOME a b;\n"


@pytest.mark.parametrize("entrypoint", [("no-such-program",), "no-such-program --fast"])
def test_a_program_that_is_not_there_is_hopeless(
    make_run: Callable[..., RunInfo], entrypoint: object
) -> None:
    info = make_run(entrypoint=entrypoint)
    assert supervise(info) in {ExitCode.NOT_RETRYABLE, 127}
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.reason == ExitReason.NOT_RETRYABLE


def test_the_start_up_hook_sets_what_the_worker_sees(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint='echo "$GREETING $#"')
    hook = "export GREETING=hello\nset -- lost arguments\necho from the hook\n"
    (Path(info.context_dir) / "startup-hook.sh").write_text(hook)
    assert supervise(info) == 0
    assert output(info) == b"from the hook\nhello 0\n"


@pytest.mark.parametrize(
    ("hook", "code"), [("false\necho not reached\n", 1), ("exit 0\n", 1), ("exit 9\n", 9)]
)
def test_a_failing_start_up_hook_ends_the_run_with_its_own_message(
    make_run: Callable[..., RunInfo], hook: str, code: int
) -> None:
    info = make_run(entrypoint="echo not reached")
    (Path(info.context_dir) / "startup-hook.sh").write_text(hook)
    assert supervise(info) == code
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message.partition(" ended with ")[0]) == (ExitReason.ERROR, "startup-hook.sh")
    assert output(info) == b""


def test_the_hosts_hook_runs_before_that_of_the_context(make_run: Callable[..., RunInfo]) -> None:
    hook = "shopt -s extglob\nexport ORDER=host\nset +e\nset -- lost\ncd /\nfalse\n"
    info = make_run(entrypoint='echo "$ORDER $# $PWD"', startup_hook=hook)
    (Path(info.context_dir) / "startup-hook.sh").write_text("ORDER=$ORDER,own\n")
    assert supervise(info) == 0
    assert output(info) == b"host,own 0 /\n"


@pytest.mark.parametrize("own", [None, "echo not reached\n"])
def test_a_failing_hook_of_the_host_is_named_as_such(
    make_run: Callable[..., RunInfo], own: str | None
) -> None:
    info = make_run(entrypoint="echo not reached", startup_hook="ls /no/such/place\n")
    if own is not None:
        (Path(info.context_dir) / "startup-hook.sh").write_text(own)
    assert supervise(info) != 0
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.message.partition(" ended with ")[0] == "startup_hook of the host's config"
    assert output(info) == b""


def test_a_failing_hook_of_the_context_is_not_taken_for_the_hosts(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="echo not reached", startup_hook="true\n")
    (Path(info.context_dir) / "startup-hook.sh").write_text("false\n")
    assert supervise(info) == 1
    ended = records(info)[-2]
    assert isinstance(ended, Ended)
    assert ended.message.partition(" ended with ")[0] == "startup-hook.sh"


def test_without_a_readable_run_file_it_says_so(make_run: Callable[..., RunInfo]) -> None:
    info = make_run()
    (Path(info.run_dir) / "run.json").write_text('{"experiment_id": 1')
    process = start(info, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == ExitCode.INFRASTRUCTURE
    assert said.startswith(f"error: cannot read run.json in {info.run_dir}: JSONDecodeError".encode())


def test_outside_a_run_it_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    done = subprocess.run(
        [sys.executable, ENTRY], env=environment, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == ExitCode.INFRASTRUCTURE
    assert done.stderr.startswith(b"error: DETBUILD_RUN_DIR is not set")


def test_scripts_learn_about_their_run(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import determined as det, json, os\ninfo = det.get_cluster_info()\n"
        "print(json.dumps([info.trial.hparams, info.user_data, os.environ['DET_HPARAMS']]))"
    )
    info = make_run(entrypoint=python(code), hparams={"lr": 0.1}, config={"data": {"url": "x"}})
    assert supervise(info) == 0
    assert json.loads(output(info)) == [{"lr": 0.1}, {"url": "x"}, '{"lr": 0.1}']


def test_a_full_disk_ends_the_run_as_infrastructure_and_leaves_whole_records(
    toy: Callable[..., RunInfo], tiny_disk: Path
) -> None:
    code = (
        "run.report_validation(1, {'loss': 0.5})\n"
        "with run.store_checkpoint(1, {}) as (path, _):\n"
        "    (path / 'state').write_bytes(bytes(2 << 20))"
    )
    info = toy(code, checkpoint_dir=str(tiny_disk / "checkpoints"))
    assert supervise(info) == ExitCode.INFRASTRUCTURE
    ended, exited = records(info)[-2:]
    assert isinstance(ended, Ended)
    assert "No space left on device" in ended.message
    assert exited == Exited(ExitCode.INFRASTRUCTURE, disk_full=True)
    assert list((tiny_disk / "checkpoints").iterdir()) == []


def test_records_on_a_full_disk_are_whole_or_absent(toy: Callable[..., RunInfo], tiny_disk: Path) -> None:
    code = "for step in range(100_000):\n    run.report_training(step, {'text': 'x' * 1000})"
    on_disk = tiny_disk / "run"
    on_disk.mkdir()
    info = toy(code, run_dir=str(on_disk))
    info.save(on_disk)
    assert supervise(info) == ExitCode.INFRASTRUCTURE
    assert len(records(info)) > 500  # none of them torn, or `records` had refused it


def test_as_pid_1_it_does_the_same(toy: Callable[..., RunInfo]) -> None:
    own_pids = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*own_pids, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may open a PID namespace")
    info = toy("import subprocess\nsubprocess.Popen(['sh', '-c', 'sleep 0.2 & exit'])\ntime.sleep(0.5)")
    environment = {**os.environ, RUN_DIR_VARIABLE: info.run_dir}
    done = subprocess.run(
        [*own_pids, sys.executable, ENTRY],
        env=environment,
        timeout=PATIENCE,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert records(info)[0] == Started(1, sys.version.split()[0], __version__)
    assert records(info)[-1] == Exited(0)


SPARE = """
with run.spare_checkpoint(7, {}, lambda path: (path / "weights").write_bytes(b"7")):
    """


@pytest.mark.parametrize(
    ("within", "announced"),
    [
        ("pass", False),
        ("raise RuntimeError('validation')", True),
        ("os.kill(os.getpid(), 9)", True),
        ("os._exit(3)", True),
        ("raise __import__('determined').InvalidHP('bad')", False),
    ],
)
def test_a_spare_checkpoint_is_announced_where_its_block_fails_or_dies(
    toy: Callable[..., RunInfo], within: str, announced: bool
) -> None:
    info = toy(SPARE + within)
    supervise(info)
    found = [record for record in records(info) if isinstance(record, Checkpoint)]
    assert [(record.steps_completed, "weights" in record.resources) for record in found] == [
        (7, True)
    ] * announced
    for record in found:
        assert checkpoints.verify(Path(info.checkpoint_dir) / record.uuid) == []
    left = {path.name for path in Path(info.checkpoint_dir).iterdir()}
    assert left == {record.uuid for record in found}
    assert not (Path(info.run_dir) / "spare_checkpoint.json").exists()
