"""Faults at random moments: no record is lost or doubled, and the weights come out the same."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import DiskFullError, EngineError
from detbuild.store import journal
from tests.fakes import Crash, Effects, FakeEngine
from tests.faults.searching import Halving, Random, made
from tests.faults.training import IMAGE_TAG, Rig, expected, rig, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEDULES = int(os.environ.get("DETBUILD_FAULT_SCHEDULES", "60"))
FAULTS = 6  # of one schedule, on average every few looks
LENGTHS = {"random": (6, 6, 6, 6), "halving": (6, 4, 2, 2)}


class Disk:
    """The disk of the home: while something is wrong with it, nothing goes into the journal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wrong: EngineError | None = None
        self.real = journal.append_synced
        monkeypatch.setattr(journal, "append_synced", self.append)

    def append(self, path: Path, line: bytes) -> None:
        if self.wrong and path.name == "journal.jsonl":
            raise self.wrong
        self.real(path, line)


class Schedule:
    """What happens to one experiment, drawn from a seed."""

    def __init__(self, tried: Rig, engine: FakeEngine, disk: Disk, seed: int) -> None:
        self.tried, self.engine, self.disk = tried, engine, disk
        self.random = random.Random(seed)
        self.done: list[str] = []
        self.faults: tuple[Callable[[], None], ...] = (
            self.lose_container,
            self.kill_container,
            self.restart_container,
            self.start_container_that_ended,
            self.freeze_container,
            self.controller_is_stopped_for_a_while,
            self.reboot,
            self.engine_goes_away,
            self.controller_dies_at_an_effect,
            self.disk_fills_up,
            self.disk_cannot_be_written,
            self.newest_checkpoint_is_damaged,
            self.image_is_lost_for_a_while,
        )

    def strike(self) -> None:
        fault = self.random.choice(self.faults)
        self.done.append(fault.__name__)
        fault()

    def _running(self) -> str | None:
        running = [c.process.spec.name for c in self.engine.containers.values() if c.status == "running"]
        return self.random.choice(running) if running else None

    def lose_container(self) -> None:
        if name := self._running():
            self.engine.lose_container(name)

    def kill_container(self) -> None:
        if name := self._running():
            self.engine.end(name, 137)

    def restart_container(self) -> None:
        if name := self._running():
            self.engine.start_again(name)

    def start_container_that_ended(self) -> None:
        """Before its controller has seen its end, or while it is removed."""
        if name := self._running():
            self.engine.end(name, self.random.choice((137, 143, 255)))
        ended = [c.process.spec.name for c in self.engine.containers.values() if c.status == "exited"]
        if ended:
            self.engine.start_again(self.random.choice(ended))

    def freeze_container(self) -> None:
        if name := self._running():
            self.engine.freeze(name, self.random.randint(1, 20))

    def controller_is_stopped_for_a_while(self) -> None:
        """Containers train on, are restarted and end unseen."""
        for _ in range(self.random.randint(1, 12)):
            for container in list(self.engine.containers.values()):
                container.step()
            if self.random.random() < 0.2:
                self.restart_container()
        self.tried.clock.wait(self.random.uniform(0, 100))

    def reboot(self) -> None:
        self.engine.reboot()
        raise Crash("the host went down")

    def engine_goes_away(self) -> None:
        self.engine.go_away(self.random.randint(1, 12))

    def controller_dies_at_an_effect(self) -> None:
        effects = self.tried.effects
        effects.crash_at = effects.count + self.random.randint(1, 4)
        effects.crash_when = self.random.choice(("before", "after"))

    def disk_fills_up(self) -> None:
        self.disk.wrong = DiskFullError("no room to write the journal")

    def disk_cannot_be_written(self) -> None:
        self.disk.wrong = EngineError("cannot write the journal: Read-only file system")

    def image_is_lost_for_a_while(self) -> None:
        self.engine.lose_image(IMAGE_TAG)

    def newest_checkpoint_is_damaged(self) -> None:
        """Of a trial that has an older one to go back to, and whose run dies with it."""
        for trial in self.tried.state().trials.values():
            whole = [c for c in trial.progress.checkpoints if c.state == "COMPLETED"]
            if trial.open_run and len(whole) > 1 and whole[0].run == trial.open_run.run:
                (self.tried.folder.checkpoints / whole[0].uuid / "state.json").write_text("torn")
                self.kill_all_of(trial.id)
                return

    def kill_all_of(self, trial_id: int) -> None:
        for container in self.engine.containers.values():
            if (
                container.process.spec.labels["detbuild.trial"] == str(trial_id)
                and container.status == "running"
            ):
                self.engine.end(container.id, 137)

    def hint(self) -> None:
        """Whatever is broken is repaired after a while."""
        self.disk.wrong = None
        self.engine.come_back()
        if self.engine.image_id(IMAGE_TAG) is None:
            self.engine.add_image(IMAGE_TAG)


@pytest.mark.parametrize("seed", range(SCHEDULES))
@pytest.mark.parametrize("search", ["random", "halving"])
def test_a_schedule_of_faults_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str, seed: int
) -> None:
    effects = Effects()
    engine = FakeEngine(train, effects=effects)
    methods = {"random": lambda _: Random(4, at_once=2), "halving": lambda _: Halving()}
    tried = rig(tmp_path, engine=engine, method=methods[search])
    schedule = Schedule(tried, engine, Disk(monkeypatch), seed)
    drive(tried, schedule)
    check(tried, schedule, LENGTHS[search])


def drive(tried: Rig, schedule: Schedule) -> None:
    controller = None
    for look in range(4000):
        try:
            controller = controller or tried.controller()
            if controller.context.state.over and controller.context.runs_removed:
                return
            if len(schedule.done) < FAULTS and schedule.random.random() < 0.15:
                schedule.strike()
            elif look % 10 == 0:
                schedule.hint()
            controller.step()
        except Crash:
            tried.effects.crash_at, controller = 0, None
        tried.clock.wait(0.7)
    raise AssertionError((schedule.done, tried.state()))


def check(tried: Rig, schedule: Schedule, lengths: tuple[int, ...]) -> None:
    state = tried.state()
    assert state.state == "COMPLETED", schedule.done
    for trial_id, length in enumerate(lengths, start=1):
        trial = state.trials[trial_id]
        start = float(str(made(trial_id).hparams["start"]))
        assert (trial.state, trial.restarts) == ("COMPLETED", 0), schedule.done
        assert tried.reports(trial_id) == expected(length, start), schedule.done
    assert tried.engine.containers == {}
    created = [name for name in tried.effects.done if name.startswith("create ")]
    assert len(created) == len(set(created))
    facts = [entry.fact for entry in tried.folder.journal()]
    told = [str(fact.event) for fact in facts if isinstance(fact, journal.Searched)]
    assert len(told) == len(set(told))
