"""A local experiment is paused, and goes on in whatever shell says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.config.host import HostConfig
from detbuild.config.parse import parse_config
from detbuild.controller.lease import holder, lease
from detbuild.controller.local import finish_pending, run_here
from detbuild.controller.requests import (
    continue_,
    continue_local,
    request,
    request_activate,
    request_continue,
    resume,
)
from detbuild.errors import ConfigError, LeaseError
from detbuild.events import Event, ExperimentContinued, RunRecord, Warned
from detbuild.experiment import SubmitRequest, run_local, this_host
from detbuild.store.home import Home
from detbuild.store.state import load
from determined._contract.records import Training
from tests.faults.training import submit, trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.journal import Verb
    from detbuild.store.state import ExperimentState
    from determined._contract.run_info import RunInfo

TRAIN = """
import time
from determined import core, get_cluster_info

newest = get_cluster_info().latest_checkpoint
with core.init() as context:
    batch = 0
    if newest:
        batch = context.checkpoint.get_metadata(newest)["steps_completed"]
        with context.checkpoint.restore_path(newest):
            pass
    operation = next(context.searcher.operations())
    while batch < operation.length:
        batch += 1
        context.train.report_training_metrics(batch, {"loss": 1.0})
        time.sleep(0.02)
        if context.preempt.should_preempt() or batch == operation.length:
            break
    with context.checkpoint.store_path({"steps_completed": batch}):
        pass
    if batch == operation.length:
        context.train.report_validation_metrics(batch, {"loss": 1.0})
        operation.report_completed(1.0)
"""
CONFIG = """
entrypoint: python3 train.py
searcher: {name: random, metric: loss, max_trials: 2, max_concurrent_trials: 1, max_length: {batches: 20}}
hyperparameters: {lr: {type: double, minval: 0, maxval: 1}}
resources: {slots_per_trial: 0}
"""


def asking(folder: Callable[[], ExperimentFolder], verb: Verb, trial_id: int, batch: int) -> Emit:
    """Somebody else asks for something when a trial has come that far."""

    def emit(event: Event) -> None:
        record = event.record if isinstance(event, RunRecord) and event.trial_id == trial_id else None
        if isinstance(record, Training) and record.steps_completed == batch:
            folder().request(verb)

    return emit


@pytest.fixture
def environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.fixture
def paused(tmp_path: Path, environ: dict[str, str]) -> ExperimentFolder:
    """The second of two trials is not done."""
    home, directory = Home.open(tmp_path / "home"), tmp_path / "model"
    directory.mkdir()
    (directory / "train.py").write_text(TRAIN)
    order = SubmitRequest(config=parse_config(CONFIG), text=CONFIG, context_dir=directory)
    emit = asking(lambda: home.folder(1), "pause", 2, 3)
    state = run_local(order, this_host(environ), home, emit)
    assert (state.state, [t.state for t in state.trials.values()]) == ("PAUSED", ["COMPLETED", "PAUSED"])
    return home.folder(1)


def batches(folder: ExperimentFolder, state: ExperimentState, trial_id: int) -> list[int]:
    found = trajectory(folder, state.trials[trial_id])
    return [record.steps_completed for record in found if isinstance(record, Training)]


def test_it_goes_on_from_its_checkpoint_and_tells_only_what_is_new(
    paused: ExperimentFolder, environ: dict[str, str]
) -> None:
    events: list[Event] = []
    state = continue_local(paused, request_activate, environ, events.append)
    assert (state.state, [len(t.runs) for t in state.trials.values()]) == ("COMPLETED", [1, 2])
    assert batches(paused, state, 2) == list(range(1, 21))
    assert events[0] == ExperimentContinued(1, str(paused.path))
    told = [e.record for e in events if isinstance(e, RunRecord) and isinstance(e.record, Training)]
    assert 3 < told[0].steps_completed < 20


def test_all_its_trials_may_train_longer(paused: ExperimentFolder, environ: dict[str, str]) -> None:
    ask = partial(request_continue, overrides=("searcher.max_length.batches=25",))
    state = continue_local(paused, ask, environ, lambda event: None)
    assert state.state == "COMPLETED"
    assert [batches(paused, state, trial_id) for trial_id in (1, 2)] == [list(range(1, 26))] * 2


def test_a_paused_one_can_be_cancelled_and_continued(
    paused: ExperimentFolder, environ: dict[str, str]
) -> None:
    home = Home.open(paused.path.parent.parent)
    request(home, 1, "cancel")
    assert load(paused).state == "CANCELED"
    state = continue_local(paused, request_continue, environ, lambda event: None)
    assert (state.state, batches(paused, state, 2)) == ("COMPLETED", list(range(1, 21)))


def test_only_a_shell_takes_it_up(paused: ExperimentFolder, environ: dict[str, str]) -> None:
    home = Home.open(paused.path.parent.parent)
    with pytest.raises(ConfigError, match="is local; it must be continued in the foreground") as refused:
        request(home, 1, "activate")
    assert "`detbuild activate 1`" in refused.value.hint
    with pytest.raises(ConfigError, match="is local; it must be continued in the foreground"):
        continue_(home, 1)
    with lease(paused.lock_file), pytest.raises(LeaseError):
        continue_local(paused, request_activate, environ, lambda event: None)
    assert load(paused).state == "PAUSED"


def test_what_is_over_is_not_activated(paused: ExperimentFolder, environ: dict[str, str]) -> None:
    request(Home.open(paused.path.parent.parent), 1, "kill")
    with pytest.raises(ConfigError, match="is not paused but canceled"):
        continue_local(paused, request_activate, environ, lambda event: None)


def test_one_whose_process_died_while_it_was_pausing_is_paused(tmp_path: Path) -> None:
    folder = submit(Home.open(tmp_path), "")

    def dies(_: RunInfo) -> int:
        folder.request("pause")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(folder, dies, lambda event: None)
    finish_pending(folder)
    state = load(folder)
    assert (state.state, state.trials[1].state) == ("PAUSED", "PAUSED")


@pytest.mark.parametrize(
    ("verb", "state"), [("pause", "PAUSED"), ("cancel", "CANCELED"), ("kill", "CANCELED")]
)
def test_training_in_this_process_is_asked_to_end_by_sigterm(tmp_path: Path, verb: Verb, state: str) -> None:
    folder = submit(Home.open(tmp_path), "")

    def train(_: RunInfo) -> int:
        came: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
        try:
            folder.request(verb)
            while not came:
                signal.sigtimedwait((), 0.01)
        finally:
            signal.signal(signal.SIGTERM, before)
        return 143

    assert run_here(folder, train, lambda event: None).state == state


def test_a_trial_of_a_program_goes_on_in_that_program_alone(tmp_path: Path) -> None:
    folder = submit(Home.open(tmp_path), "")
    config = json.loads(folder.config_file.read_bytes())
    folder.config_file.write_text(json.dumps({**config, "entrypoint": None}))
    with pytest.raises(ConfigError, match="ran in a Python program that defines its trial"):
        continue_local(folder, request_continue, {}, lambda event: None)


DEAF = """
import os, signal, subprocess, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
deaf = "trap '' TERM HUP INT; echo $$; while :; do sleep 1; done"
subprocess.Popen(["sh", "-c", deaf], start_new_session=True)
os.write(1, b"%d\\n" % os.getpid())  # in one piece
time.sleep(600)
"""
DETBUILD = """
import sys
from functools import partial
from pathlib import Path
from detbuild.config.host import HostConfig
from detbuild.config.parse import parse_config
from detbuild.controller import local
from detbuild.experiment import SubmitRequest, run_local, this_host
from detbuild.store.home import Home
local.run_local = partial(local.run_local, grace=0.5)
text = "entrypoint: python3 train.py\\nresources: {slots_per_trial: 0}\\n" \
    "searcher: {name: single, metric: loss, max_length: {batches: 1}}\\n"
order = SubmitRequest(config=parse_config(text), text=text, context_dir=Path("model"), local_hooks=True)
import os
state = run_local(order, this_host(os.environ), Home.open(Path("home")), lambda event: None)
print(state.state, flush=True)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120  # what takes longer hangs
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda one: one.name)
def test_however_it_is_ended_from_outside_no_process_is_left(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    """Deaf ones, one of a hook, and one in a session of its own too."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "train.py").write_text(DEAF)
    (tmp_path / "model" / "startup-hook.sh").write_text(
        "setsid sh -c 'trap \"\" TERM HUP INT; echo $$; while :; do sleep 1; done' &\n"
    )
    (tmp_path / "detbuild.py").write_text(DETBUILD)
    folder = Home.open(tmp_path / "home").folder(1)
    detbuild = subprocess.Popen(
        [sys.executable, "-P", "detbuild.py"]
        if sys.version_info >= (3, 11)
        else [sys.executable, "detbuild.py"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
    )
    output = folder.run(1, 0).output("stdout")
    until(lambda: output.exists() and output.read_bytes().count(b"\n") == 3)
    found = holder(folder.lock_file)
    assert found is not None
    pids = [found.pid, *map(int, output.read_text().split())]
    detbuild.send_signal(number)
    said, _ = detbuild.communicate()
    until(lambda: not any(map(running, pids)))
    assert (said, detbuild.returncode) == ((b"", -number) if number is signal.SIGKILL else (b"CANCELED\n", 0))
    until(lambda: holder(folder.lock_file) is None)  # the supervisor held it on
    resume(Home.open(tmp_path / "home"))
    assert load(folder).over


def test_a_run_whose_supervisor_is_killed_leaves_no_process(tmp_path: Path, environ: dict[str, str]) -> None:
    home, directory, pids = Home.open(tmp_path / "home"), tmp_path / "model", list[int]()
    directory.mkdir()
    (directory / "train.py").write_text(DEAF)
    text = CONFIG.replace("max_trials: 2", "max_trials: 1")
    order = SubmitRequest(config=parse_config(text), text=text, context_dir=directory)

    def kill_supervisor() -> None:
        output = home.folder(1).run(1, 0).output("stdout")
        until(lambda: output.exists() and output.read_bytes().count(b"\n") == 2)
        pids.extend(map(int, output.read_text().split()))
        os.kill(ancestor(pids, below=os.getpid()), signal.SIGKILL)
        until(lambda: home.folder(1).run(1, 1).output("stdout").exists())  # as a container would go on
        assert not any(map(running, pids))
        home.folder(1).request("kill")

    thread = threading.Thread(target=kill_supervisor, daemon=True)
    thread.start()
    state = run_local(order, this_host(environ), home, lambda event: None)
    thread.join()
    lost, killed = (run.finished for run in state.trials[1].runs)
    assert lost
    assert killed
    assert (lost.outcome, killed.outcome, state.state) == ("infrastructure", "killed", "CANCELED")
    assert not any(map(running, pids))
    assert len(pids) == 2


def ancestor(pids: list[int], *, below: int) -> int:
    """The child of the process `below` that all of this began with."""
    for began in pids:
        pid = began
        while (parent := parent_of(pid)) > 1:
            if parent == below:
                return pid
            pid = parent
    raise AssertionError(f"none of {pids} descends from {below}")


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_deaf_run_that_is_paused_is_killed_when_its_time_is_over(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    home, directory = Home.open(tmp_path / "home"), tmp_path / "model"
    directory.mkdir()
    (directory / "train.py").write_text(DEAF)
    text = f"{CONFIG.replace('max_trials: 2', 'max_trials: 1')}\npreemption_timeout: 1\n"
    order = SubmitRequest(config=parse_config(text), text=text, context_dir=directory)

    def pause() -> None:
        output = home.folder(1).run(1, 0).output("stdout")
        until(lambda: output.exists() and output.read_bytes().count(b"\n") == 2)
        home.folder(1).request("pause")

    threading.Thread(target=pause, daemon=True).start()
    assert run_local(order, this_host(environ), home, lambda event: None).state == "PAUSED"
    assert not any(map(running, map(int, home.folder(1).run(1, 0).output("stdout").read_text().split())))


@pytest.mark.parametrize("asked", [False, True])
def test_startup_hooks_run_on_this_host_only_when_asked_for(
    tmp_path: Path, environ: dict[str, str], asked: bool
) -> None:
    home, directory, events = Home.open(tmp_path / "home"), tmp_path / "model", list[Event]()
    directory.mkdir()
    (directory / "train.py").write_text(TRAIN)
    (directory / "startup-hook.sh").write_text(f"touch {tmp_path}/own\n")
    host = HostConfig(startup_hook=f"touch {tmp_path}/hosts\n")
    order = SubmitRequest(
        config=parse_config(CONFIG), text=CONFIG, context_dir=directory, host_config=host, local_hooks=asked
    )
    assert run_local(order, this_host(environ), home, events.append).state == "COMPLETED"
    assert [(tmp_path / name).exists() for name in ("own", "hosts")] == [asked, asked]
    said = [event.message for event in events if isinstance(event, Warned)]
    why = "startup_hook of the host's config and startup-hook.sh of the context are not run in a local run"
    assert said == ([] if asked else [why])
