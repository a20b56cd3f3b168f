"""Faults made for real on a Docker Engine: nothing is lost, nothing doubled, and the reason is shown."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild import experiment
from detbuild.config.parse import config_from_mapping
from detbuild.controller.lease import holder
from detbuild.controller.requests import RequestWatcher, request, resume
from detbuild.engine.docker import DockerEngine
from detbuild.errors import EngineError
from detbuild.events import Event
from detbuild.experiment import SubmitRequest, this_host
from detbuild.store import journal
from detbuild.store.home import Home
from tests.faults.real import (
    BATCHES,
    CONFIG,
    ENDLESS,
    HOLD,
    MODEL,
    SEARCH,
    Trial,
    assert_whole,
    docker,
    expected,
)
from tests.faults.training import trajectory

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.engine


def test_nothing_goes_wrong(submit: Callable[..., Trial]) -> None:
    trial = submit()
    assert_whole(trial, ["completed"])
    assert (trial.folder.run(1, 0).path / "events.jsonl").stat().st_uid == os.getuid()


def test_the_controller_is_killed_again_and_again(submit: Callable[..., Trial]) -> None:
    trial = submit()
    for batch in (3, 8, HOLD):
        trial.train_until(batch)
        trial.kill_controller()
        assert resume(trial.home) == (trial.id,)
    assert_whole(trial, ["completed"])


def test_a_search_in_segments_outlives_its_controllers(submit: Callable[..., Trial]) -> None:
    trial = submit(**SEARCH)
    for _ in range(5):
        time.sleep(0.7)
        if trial.controller():
            trial.kill_controller()
            resume(trial.home)
    state = trial.end()
    assert (state.state, {each.state for each in state.trials.values()}) == ("COMPLETED", {"COMPLETED"})
    assert len(state.trials) == 4
    assert max(len(each.runs) for each in state.trials.values()) == 2
    for each in state.trials.values():
        assert trajectory(trial.folder, each) == expected(10 * len(each.runs))
        assert {run.finished.outcome for run in each.runs if run.finished} == {"completed"}
    told = [str(e.fact.event) for e in trial.folder.journal() if isinstance(e.fact, journal.Searched)]
    assert len(told) == len(set(told))


def test_a_paused_experiment_leaves_the_host_and_comes_back(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    request(trial.home, trial.id, "pause")
    trial.until(lambda: trial.state().state == "PAUSED" and not trial.controller(), what="the pause")
    assert trial.engine.find({"detbuild.home": trial.home.id}) == ()
    assert resume(trial.home) == ()
    request(trial.home, trial.id, "activate")
    assert_whole(trial, ["preempted", "completed"])


def test_a_controller_that_is_gone_is_replaced_by_whoever_waits(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    trial.kill_controller()
    assert_whole(trial, ["completed"])


def test_the_worker_is_killed(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    os.kill(trial.worker(), signal.SIGKILL)
    assert_whole(trial, ["user_error", "completed"], restarts=1)
    assert trial.state().trials[1].runs[0].finished.signal == "SIGKILL"  # type: ignore[union-attr]


def test_the_supervisor_is_killed(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    docker("kill", trial.container())
    assert_whole(trial, ["infrastructure", "completed"])


@pytest.mark.parametrize("how", ["restart", "kill and start", "stop and start"])
@pytest.mark.parametrize("looking", [True, False], ids=["controller looks", "controller is stopped"])
def test_a_container_that_is_started_again_leaves(
    submit: Callable[..., Trial], how: str, looking: bool
) -> None:
    trial = submit()
    trial.train_until(HOLD)
    with nullcontext() if looking else trial.stopped_controller():
        for verb in how.split(" and "):
            # The controller may have seen the first end, and removed the container since.
            subprocess.run(["docker", verb, trial.container()], check=not looking, capture_output=True)
        if not looking:
            trial.until(lambda: trial.engine.inspect(trial.container()).ended, what="its end")
    trial.go_on()
    state = trial.end()
    assert (state.state, state.trials[1].restarts) == ("COMPLETED", 0)
    assert trial.outcomes()[0] in {"infrastructure", "preempted"}
    assert trial.outcomes()[1:] == ["completed"]
    assert trial.reports() == expected()


def test_a_container_that_is_frozen_trains_on(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    docker("pause", trial.container())
    trial.go_on()
    docker("unpause", trial.container())
    assert_whole(trial, ["completed"])


def test_a_controller_that_is_stopped_is_not_replaced(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    said: list[Event] = []
    follower = RequestWatcher(trial.folder, said.append)
    with trial.stopped_controller():
        before = trial.controller()
        for _ in range(50):
            follower.poll()
        assert (trial.controller(), said) == (before, [])
    assert_whole(trial, ["completed"])


def test_the_container_is_removed(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    docker("rm", "-f", trial.container())
    assert_whole(trial, ["lost", "completed"])


def test_controller_and_container_are_killed_together(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    trial.kill_controller()
    docker("kill", trial.container())
    resume(trial.home)
    assert_whole(trial, ["infrastructure", "completed"])


def test_somebody_stops_the_container(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    docker("stop", trial.container())
    assert_whole(trial, ["preempted", "completed"])


def test_memory_runs_out(submit: Callable[..., Trial], tmp_path: Path) -> None:
    context = tmp_path / "hungry"
    context.mkdir()
    (context / "train.py").write_bytes((MODEL / "train.py").read_bytes())
    (context / "hog").touch()
    trial = submit(context)
    docker("update", "--memory", "64m", "--memory-swap", "64m", trial.container())
    assert_whole(trial, ["out_of_memory", "completed"], restarts=1)
    assert "out of memory" in trial.state().trials[1].runs[0].finished.message  # type: ignore[union-attr]


def test_memory_runs_out_at_the_limit_of_the_config(submit: Callable[..., Trial], tmp_path: Path) -> None:
    context = tmp_path / "hungry"
    context.mkdir()
    (context / "train.py").write_bytes((MODEL / "train.py").read_bytes())
    (context / "hog").touch()
    trial = submit(context, resources={"slots_per_trial": 0, "memory": "64m"})
    assert_whole(trial, ["out_of_memory", "completed"], restarts=1)
    finished = trial.state().trials[1].runs[0].finished
    assert finished is not None
    assert "its limit is 64 MiB (resources.memory)" in finished.message
    assert "raise `resources.memory`" in finished.hint


def test_the_newest_checkpoint_is_damaged(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.train_until(HOLD)
    trial.kill_controller()
    docker("kill", trial.container())
    newest = trial.state().trials[1].progress.checkpoints[0]
    os.truncate(trial.folder.checkpoints / newest.uuid / "state.json", 3)
    resume(trial.home)
    assert_whole(trial, ["infrastructure", "completed"])
    damaged = [c for c in trial.state().trials[1].progress.checkpoints if c.state == "ERROR"]
    assert [c.uuid for c in damaged] == [newest.uuid]


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="it takes libfaketime, of the Debian package of that name")
def test_the_wall_clock_jumps_under_controllers(
    submit: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a month and back, under two controllers; only what is shown as a time is wrong."""
    clock = tmp_path / "clock"
    clock.write_text("+0d\n")
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    trial = submit()
    for batch, jump in ((3, "+30d"), (8, "-2d"), (HOLD, "+1d")):
        trial.train_until(batch)
        clock.write_text(f"{jump}\n")
    trial.kill_controller()
    clock.write_text("-30d\n")
    assert resume(trial.home) == (trial.id,)
    assert_whole(trial, ["completed"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_the_disk_of_the_checkpoints_has_no_inodes_left(submit: Callable[..., Trial], tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=12", "tmpfs", str(few)], check=True)
    try:
        trial = submit(
            checkpoint_storage={"type": "shared_fs", "host_path": str(few)},
            hyperparameters={"batches": BATCHES, "pace": 0.01, "ballast": 10, "hold": 0},
        )
        trial.until(lambda: trial.outcomes()[-1:] == ["disk_full"], what="a disk without inodes")
        trial.until(lambda: "no inodes left" in trial.state().why, what="the reason")
        subprocess.run(["mount", "-o", "remount,nr_inodes=10000", str(few)], check=True)
        assert_whole(trial, ["disk_full", "completed"])
    finally:
        subprocess.run(["umount", "-l", str(few)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_the_disk_of_the_checkpoints_is_full(submit: Callable[..., Trial], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        trial = submit(
            checkpoint_storage={"type": "shared_fs", "host_path": str(small)},
            hyperparameters={"batches": BATCHES, "pace": 0.01, "ballast": 200_000, "hold": 0},
        )
        trial.until(lambda: trial.outcomes()[-1:] == ["disk_full"], what="a full disk")
        trial.until(lambda: "no space left" in trial.state().why, what="the reason")
        kept = trial.state().trials[1].progress.checkpoints
        assert [c.state for c in kept] == ["COMPLETED"] * len(kept)
        assert not list(small.glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert_whole(trial, ["disk_full", "completed"])
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_two_controllers_at_once(submit: Callable[..., Trial]) -> None:
    trial = submit()
    trial.until(lambda: holder(trial.folder.lock_file), what="the controller")
    found = holder(trial.folder.lock_file)
    command = [sys.executable, "-m", "detbuild.controller", str(trial.folder.path)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 75
    assert found is not None
    assert f"process {found.pid}" in second.stderr
    assert_whole(trial, ["completed"])


def test_whoever_follows_may_leave(submit: Callable[..., Trial]) -> None:
    trial = submit()
    code = (
        "import sys; from pathlib import Path; from detbuild.experiment import follow; "
        "from detbuild.store.home import Home; "
        f"follow(Home.open(Path({str(trial.home.path)!r})), {trial.id}, lambda e: print(e, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert any("RunStarted" in line for line in follower.stdout)
        follower.send_signal(signal.SIGINT)
        follower.communicate()
    assert_whole(trial, ["completed"])


@pytest.mark.parametrize(("verb", "outcome"), [("cancel", "preempted"), ("kill", "killed")])
def test_a_request_is_answered_at_once(submit: Callable[..., Trial], verb: str, outcome: str) -> None:
    trial = submit(hyperparameters=ENDLESS)
    trial.train_until(7)
    began = time.monotonic()
    request(trial.home, trial.id, verb)
    state = trial.end()
    assert time.monotonic() - began < 5
    assert (state.state, trial.outcomes()) == ("CANCELED", [outcome])
    steps = state.trials[1].progress.steps_completed
    assert trial.reports() == [report for report in expected(10_000) if report.steps_completed <= steps]
    if verb == "cancel":
        assert state.trials[1].progress.checkpoints[0].steps_completed == steps


def test_a_kill_that_was_asked_while_nobody_listened(submit: Callable[..., Trial]) -> None:
    trial = submit(hyperparameters=ENDLESS)
    trial.train_until(7)
    trial.kill_controller()
    docker("kill", trial.container())
    trial.folder.request("kill")
    resume(trial.home)
    assert (trial.end().state, trial.outcomes()) == ("CANCELED", ["killed"])
    trial.until(lambda: trial.engine.find({"detbuild.home": trial.home.id}) == (), what="a clean engine")


def test_a_container_that_cannot_start_says_why(submit: Callable[..., Trial]) -> None:
    trial = submit(resources={"slots_per_trial": 0, "devices": ["/dev/no-such-device:/dev/x"]})
    state = trial.end()
    assert (state.state, trial.outcomes()) == ("ERROR", ["not_retryable"])
    assert "/dev/no-such-device" in state.why


def test_a_container_that_cannot_run_the_harness_says_why(submit: Callable[..., Trial]) -> None:
    trial = submit(environment={"environment_variables": ["PYTHONHOME=/nowhere"]})
    state = trial.end()
    assert (state.state, trial.outcomes()) == ("ERROR", ["not_retryable"])
    assert any("/nowhere" in line for line in state.trials[1].runs[0].finished.tail)  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_cannot_be_reached_creates_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    host = this_host({"HOME": str(tmp_path)})
    order = SubmitRequest(config=config_from_mapping(CONFIG), text="", context_dir=MODEL)
    with pytest.raises(EngineError, match="cannot reach Docker Engine"):
        experiment.prepare(
            order, host, home, list[Event]().append, builder=DockerEngine(f"unix://{tmp_path}/none.sock")
        )
    assert home.ids() == ()
    gc.collect()  # docker-py leaves the socket to it that it could not connect
