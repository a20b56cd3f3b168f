"""Faults of the host under a trial or a search: its disks, its engine's socket, its images; made for real."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from detbuild import experiment
from detbuild.config.parse import config_from_mapping
from detbuild.controller.requests import resume
from detbuild.engine.docker import DockerEngine
from detbuild.events import Event
from detbuild.experiment import SubmitRequest, this_host
from tests.faults.real import (
    BATCHES,
    CONFIG,
    HOLD,
    MODEL,
    Trial,
    assert_whole,
    docker,
    expected,
    full,
    mounted,
)
from tests.faults.training import trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.store.home import Home

pytestmark = pytest.mark.engine
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")

SEARCH = {
    "searcher": {
        "name": "random",
        "max_trials": 4,
        "max_concurrent_trials": 2,
        "metric": "accuracy",
        "smaller_is_better": False,
        "max_length": 20,
    },
    "hyperparameters": {"batches": 20, "pace": 0.05, "ballast": 10, "hold": 0},
}


def assert_all_whole(trial: Trial, trials: int, batches: int) -> None:
    """Every trial of the search reports what an undisturbed one does, and no restart was charged."""
    state = trial.end()
    assert (state.state, len(state.trials)) == ("COMPLETED", trials)
    for each in state.trials.values():
        assert (each.state, each.restarts) == ("COMPLETED", 0)
        assert trajectory(trial.folder, each) == expected(batches)
    trial.until(lambda: trial.engine.find({"detbuild.home": trial.home.id}) == (), what="a clean engine")


class TestOnASmallDisk:
    @pytest.fixture
    def home_directory(self, tmp_path: Path) -> Iterator[Path]:
        with mounted(tmp_path / "home", "4m") as place:
            yield place

    @needs_root
    def test_the_disk_of_the_home_is_full_under_a_search(
        self, home_directory: Path, submit: Callable[..., Trial]
    ) -> None:
        trial = submit(**SEARCH)
        trial.train_until(3)
        with full(home_directory):
            trial.until(lambda: not running(trial), what="the end of all runs")
            assert f"the disk of {trial.folder.path} is full" in described(trial)
        assert_all_whole(trial, 4, 20)

    @needs_root
    def test_the_disk_of_the_home_cannot_be_written_for_a_while(
        self, home_directory: Path, submit: Callable[..., Trial]
    ) -> None:
        trial = submit(**SEARCH)
        trial.train_until(3)
        chattr("+i", trial.folder.journal_file)
        trial.until(lambda: not running(trial), what="the end of the first runs")
        time.sleep(1)  # the controller tries to write down what it sees
        assert trial.controller()
        chattr("-i", trial.folder.journal_file)
        assert_all_whole(trial, 4, 20)


def chattr(flag: str, file: Path) -> None:
    subprocess.run(["chattr", flag, str(file)], check=True)


def running(trial: Trial) -> list[str]:
    found = trial.engine.find({"detbuild.home": trial.home.id})
    return [container.name for container in found if not container.ended]


def described(trial: Trial) -> str:
    """What a person is shown."""
    command = [sys.executable, "-m", "detbuild.cli", "describe", str(trial.id)]
    environment = {**os.environ, "DETBUILD_HOME": str(trial.home.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def loop_disk(place: Path) -> Iterator[Path]:
    """A file system on a disk, as far as the kernel can tell."""
    image = place.with_suffix(".img")
    image.write_bytes(b"")
    os.truncate(image, 64 << 20)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@needs_root
def test_a_disk_that_hangs_holds_up_only_the_trials_that_write_to_it(
    submit: Callable[..., Trial], tmp_path: Path
) -> None:
    with loop_disk(tmp_path / "hung") as hung:
        stuck = submit(
            checkpoint_storage={"type": "shared_fs", "host_path": str(hung)},
            hyperparameters={"batches": BATCHES, "pace": 0.05, "ballast": 10, "hold": 0},
        )
        stuck.train_until(3)
        subprocess.run(["fsfreeze", "-f", str(hung)], check=True)
        try:
            other = submit()
            other.go_on()
            assert other.end().state == "COMPLETED"
            assert stuck.state().state == "RUNNING"
            assert "running" in described(stuck)
        finally:
            subprocess.run(["fsfreeze", "-u", str(hung)], check=True)
        assert_whole(stuck, ["completed"])


class Relay:
    """A socket that leads to the engine's own, and may go away with all that runs over it."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        self.server: socket.socket | None = None
        self.open: list[socket.socket] = []

    def come(self) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.path))
        self.server.listen(64)
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()

    def go(self) -> None:
        self.path.unlink()
        assert self.server is not None
        for each in (self.server, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def _accept(self, server: socket.socket) -> None:
        with server, suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_the_socket_of_the_engine_is_gone_for_a_while(
    submit: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(tmp_path / "docker.sock", "/var/run/docker.sock")
    relay.come()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")  # of the controller alone
    trial = submit()
    trial.train_until(HOLD)
    relay.go()
    trial.until(lambda: "cannot reach Docker Engine" in trial.state().why, what="the reason")
    trial.go_on()
    trial.until(lambda: trial.steps() == BATCHES, what="the end of training, which needs no engine")
    relay.come()
    assert_whole(trial, ["completed"])
    relay.go()


def test_the_image_is_removed(submit: Callable[..., Trial], tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "train.py").write_bytes((MODEL / "train.py").read_bytes())
    (context / "own").write_text(uuid4().hex)  # an image that no other experiment needs
    trial = submit(context)
    image, tag = trial.state().header.image, trial.state().header.tag
    trial.train_until(HOLD)
    trial.kill_controller()
    docker("rm", "-f", trial.container())
    docker("rmi", "-f", image)
    resume(trial.home)
    trial.until(lambda: f"the image {image[:19]} was removed" in described(trial), what="the reason")
    build(trial.home, context)
    assert trial.engine.image_id(tag) == image
    assert_whole(trial, ["lost", "completed"])
    docker("rmi", "-f", image)


def build(home: Home, context: Path) -> None:
    """What `detbuild build` does."""
    host = this_host({"PATH": os.environ["PATH"], "HOME": str(home.path)})
    order = SubmitRequest(config=config_from_mapping(CONFIG), text="", context_dir=context)
    engine, ignored = DockerEngine(), list[Event]()
    submission = experiment.prepare(order, host, home, ignored.append, builder=engine)
    experiment.build_image(submission, host, home, ignored.append, builder=engine)
    engine.close()


FLOOD = 400_000_000  # bytes


def test_a_flood_of_output_fills_no_disk_and_stops_nobody(submit: Callable[..., Trial]) -> None:
    flood = f"yes 'a line of no interest to anybody' | head -c {FLOOD}; exec python3 train.py"
    trial = submit(entrypoint=["sh", "-c", flood])
    command = [sys.executable, "-m", "detbuild.cli", "logs", "-f", str(trial.id)]
    environment = {**os.environ, "DETBUILD_HOME": str(trial.home.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as reader:  # who never reads
        trial.train_until(HOLD)
        assert resident(reader.pid) < 100 << 20
        reader.kill()
    kept = sum(file.stat().st_size for file in trial.folder.run(1, 0).path.glob("std*.log"))
    assert kept < FLOOD / 4
    assert_whole(trial, ["completed"])


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
