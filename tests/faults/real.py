"""An experiment on a real Docker Engine, and what can be done to it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from detbuild.controller.lease import holder
from detbuild.controller.requests import wait
from detbuild.events import Event
from detbuild.store.state import ExperimentState, load
from determined._contract.records import Training, Validation
from tests.faults.training import trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.engine.docker import DockerEngine
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

MODEL = Path(__file__).parent / "model"
BATCHES = 40
HOLD = 16
CONFIG: Mapping[str, object] = {
    "name": "fault",
    "entrypoint": ["python3", "train.py"],
    "searcher": {"name": "single", "metric": "accuracy", "smaller_is_better": False},
    "resources": {"slots_per_trial": 0},
    # At batch `hold` a trial waits until it is told to go on, so that faults need not hurry.
    "hyperparameters": {"batches": BATCHES, "pace": 0.01, "ballast": 10, "hold": HOLD},
}
ENDLESS = {"batches": 10_000, "pace": 0.05, "ballast": 10, "hold": 0}
PATIENCE = 60  # seconds
# Four trials in two segments, two at a time.
SEARCH: Mapping[str, object] = {
    "searcher": {
        "name": "async_halving",
        "num_rungs": 2,
        "divisor": 2,
        "max_trials": 4,
        "max_concurrent_trials": 2,
        "metric": "accuracy",
        "smaller_is_better": False,
        "max_length": 20,
    },
    "hyperparameters": {"batches": 20, "pace": 0.05, "ballast": 10, "hold": 0, "in_segments": True},
}


def expected(batches: int = BATCHES) -> list[Training | Validation]:
    reports: list[Training | Validation] = []
    loss = 1.0
    for batch in range(1, batches + 1):
        loss = loss * 0.9 + 1 / (batch + loss)
        reports.append(Training(batch, {"loss": loss}))
        if batch % 5 == 0:
            reports.append(Validation(batch, {"accuracy": 1 / (1 + loss)}))
    return reports


@dataclass
class Trial:
    """A submitted experiment, and what can be done to it."""

    home: Home
    folder: ExperimentFolder
    engine: DockerEngine

    @property
    def id(self) -> int:
        return self.folder.id

    def state(self) -> ExperimentState:
        return load(self.folder)

    def container(self, run: int = 0) -> str:
        return f"detbuild-{self.home.id}-{self.id}-1-{run}"

    def steps(self) -> int:
        trial = self.state().trials.get(1)
        return trial.progress.steps_completed if trial else 0

    def until(self, condition: Callable[[], object], *, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come; {self.state()}"
            time.sleep(0.05)

    def train_until(self, batch: int) -> None:
        self.until(lambda: self.steps() >= batch, what=f"batch {batch}")

    def go_on(self) -> None:
        """Let it train past the batch at which it holds."""
        (self.folder.checkpoints / "go").touch()

    def end(self) -> ExperimentState:
        return wait(self.home, self.id, list[Event]().append)

    def outcomes(self) -> list[str]:
        return [run.finished.outcome for run in self.state().trials[1].runs if run.finished]

    def reports(self) -> list[Training | Validation]:
        return trajectory(self.folder, self.state().trials[1])

    def kill_controller(self) -> None:
        self.until(self.controller, what="the controller")
        os.kill(self.controller(), signal.SIGKILL)
        self.until(lambda: not self.controller(), what="the controller's end")

    @contextmanager
    def stopped_controller(self) -> Iterator[None]:
        """The controller does not run meanwhile; it lives."""
        self.until(self.controller, what="the controller")
        pid = self.controller()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def controller(self) -> int:
        """Its process id; 0 while there is none."""
        found = holder(self.folder.lock_file)
        return found.pid if found else 0

    def worker(self) -> int:
        """The worker's pid on the host: the supervisor's child."""
        top = docker("top", self.container(), "-eo", "pid,args").splitlines()[1:]
        return next(int(line.split()[0]) for line in top if "train.py" in line)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system in memory, of its own."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def full(place: Path) -> Iterator[None]:
    """Not a block is left there meanwhile."""
    ballast = place / f"ballast-{uuid4().hex}"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


def assert_whole(trial: Trial, outcomes: list[str], *, restarts: int = 0) -> None:
    trial.go_on()
    state = trial.end()
    assert (state.state, trial.outcomes()) == ("COMPLETED", outcomes)
    assert state.trials[1].restarts == restarts
    assert trial.reports() == expected()
    steps = [c.steps_completed for c in state.trials[1].progress.checkpoints]
    assert set(steps) >= set(range(5, BATCHES + 1, 5))
    trial.until(lambda: trial.engine.find({"detbuild.home": trial.home.id}) == (), what="a clean engine")
