"""Faults at random moments of a search on a real engine: nothing is lost, doubled or charged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.requests import request, resume
from detbuild.store import journal
from tests.faults.real import SEARCH, Trial, expected
from tests.faults.training import trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.store.state import TrialState

pytestmark = [pytest.mark.engine, pytest.mark.long]

SCHEDULES = int(os.environ.get("DETBUILD_REAL_FAULT_SCHEDULES", "3"))
FAULTS = 5  # of one schedule
_NO_PROCESS = (1 << 22) + 1  # beyond the largest pid


class Schedule:
    """What happens to one search, drawn from a seed."""

    def __init__(self, search: Trial, seed: int) -> None:
        self.search = search
        self.random = random.Random(seed)
        self.done: list[str] = []
        self.faults: tuple[Callable[[], None], ...] = (
            self.kill_controller,
            self.kill_container,
            self.remove_container,
            self.stop_container,
            self.restart_container,
            self.kill_and_start_container,
            self.freeze_container,
            self.stop_controller_for_a_while,
            self.restart_unseen,
            self.kill_controller_and_containers,
            self.damage_newest_checkpoint,
            self.pause_and_activate,
        )

    def run(self) -> None:
        for _ in range(FAULTS):
            time.sleep(self.random.uniform(0.1, 0.9))
            if self.search.state().over:
                return
            fault = self.random.choice(self.faults)
            self.done.append(fault.__name__)
            fault()

    def running(self) -> list[str]:
        found = self.search.engine.find({"detbuild.home": self.search.home.id})
        return sorted(container.name for container in found if container.status == "running")

    def docker(self, *arguments: str) -> None:
        """To any container; it may have ended by itself a moment ago."""
        names = self.running()
        if names:
            command = ["docker", *arguments, self.random.choice(names)]
            subprocess.run(command, check=False, capture_output=True)

    def kill_container(self) -> None:
        self.docker("kill")

    def remove_container(self) -> None:
        self.docker("rm", "-f")

    def stop_container(self) -> None:
        self.docker("stop")

    def restart_container(self) -> None:
        self.docker("restart", "-t", self.random.choice(("0", "2")))

    def kill_and_start_container(self) -> None:
        """It may have been removed in between."""
        if names := self.running():
            name = self.random.choice(names)
            for verb in ("kill", "start"):
                subprocess.run(["docker", verb, name], check=False, capture_output=True)

    def freeze_container(self) -> None:
        if names := self.running():
            name = self.random.choice(names)
            for verb in ("pause", "unpause"):
                subprocess.run(["docker", verb, name], check=False, capture_output=True)
                time.sleep(self.random.uniform(0, 1.5))

    @contextmanager
    def stopped_controller(self) -> Iterator[None]:
        pid = self.search.controller()
        with suppress(ProcessLookupError):
            os.kill(pid or _NO_PROCESS, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid or _NO_PROCESS, signal.SIGCONT)

    def stop_controller_for_a_while(self) -> None:
        with self.stopped_controller():
            time.sleep(self.random.uniform(0.2, 4))

    def restart_unseen(self) -> None:
        """The controller sees only the second end of it, if it is there to see it."""
        with self.stopped_controller():
            self.restart_container()
            time.sleep(self.random.uniform(0, 2))

    def kill_controller(self) -> None:
        if self.search.controller():
            self.search.kill_controller()
            resume(self.search.home)

    def kill_controller_and_containers(self) -> None:
        if self.search.controller():
            self.search.kill_controller()
            for name in self.running():
                subprocess.run(["docker", "kill", name], check=False, capture_output=True)
            resume(self.search.home)

    def damage_newest_checkpoint(self) -> None:
        """Of a run that has an older one to go back to, and dies with it."""
        if not self.search.controller():
            return
        self.search.kill_controller()
        for trial in self.search.state().trials.values():
            whole = [c for c in trial.progress.checkpoints if c.state == "COMPLETED"]
            if trial.open_run and len(whole) > 1 and whole[0].run == trial.open_run.run:
                name = f"detbuild-{self.search.home.id}-{self.search.id}-{trial.id}-{trial.open_run.run}"
                subprocess.run(["docker", "kill", name], check=False, capture_output=True)
                os.truncate(self.search.folder.checkpoints / whole[0].uuid / "state.json", 3)
                break
        resume(self.search.home)

    def pause_and_activate(self) -> None:
        search = self.search
        request(search.home, search.id, "pause")
        search.until(lambda: search.state().over or search.state().state == "PAUSED", what="the pause")
        request(search.home, search.id, "activate")


def length(trial: TrialState) -> int:
    """Ten batches a segment."""
    return 10 * trial.segment


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_schedule_of_faults_changes_nothing(submit: Callable[..., Trial], seed: int) -> None:
    search = submit(**SEARCH)
    schedule = Schedule(search, seed)
    schedule.run()
    state = search.end()
    assert (state.state, len(state.trials)) == ("COMPLETED", 4), schedule.done
    for trial in state.trials.values():
        assert (trial.state, trial.restarts) == ("COMPLETED", 0), schedule.done
        assert trajectory(search.folder, trial) == expected(length(trial)), schedule.done
    assert 20 in map(length, state.trials.values())
    told = [str(e.fact.event) for e in search.folder.journal() if isinstance(e.fact, journal.Searched)]
    assert len(told) == len(set(told)), schedule.done
    search.until(lambda: search.engine.find({"detbuild.home": search.home.id}) == (), what="a clean engine")
