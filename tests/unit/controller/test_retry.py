"""The wall clock may jump: waits go by another one, order by the journal, and only what is shown is wrong."""

from __future__ import annotations

import time
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.retry import SystemClock
from tests.faults.searching import Halving, made
from tests.faults.training import expected, rig

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600.0


@pytest.mark.parametrize("jumps", [(-HOUR,), (24 * HOUR,), (24 * HOUR, -HOUR, 0.0)])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: tuple[float, ...]
) -> None:
    true, offset = time.time, cycle((0.0, *jumps))
    monkeypatch.setattr(time, "time", lambda: true() + next(offset))
    tried = rig(tmp_path, method=lambda _: Halving())
    assert tried.run().state == "COMPLETED"
    for trial in tried.state().trials.values():
        length = trial.progress.steps_completed
        assert (trial.state, trial.restarts, len(trial.runs)) == ("COMPLETED", 0, length // 2)
        assert tried.reports(trial.id) == expected(length, float(str(made(trial.id).hparams["start"])))


def test_the_clock_of_the_controller_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock.wait(0.01)
    assert 0.01 <= clock.now() - before < HOUR
