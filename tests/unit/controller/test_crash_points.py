"""The controller is killed before and after every one of its effects; the experiment must not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from tests.fakes import Crash, Effects, FakeEngine
from tests.faults.training import BATCHES, Rig, expected, rig, train

if TYPE_CHECKING:
    from pathlib import Path

SLACK = 3  # crash points beyond the last effect: nothing happens there, and that must hold too


def effects_of_an_undisturbed_run(path: Path) -> int:
    undisturbed = rig(path)
    undisturbed.run()
    return undisturbed.effects.count


def run_with_crash(tried: Rig) -> None:
    """Kill the controller at its crash point and start another one; the engine lives on."""
    try:
        tried.run()
    except Crash:
        tried.effects.crash_at = 0
        tried.run()


def crash_points() -> list[tuple[int, Literal["before", "after"]]]:
    return [(number, when) for number in range(1, 12 + SLACK) for when in ("before", "after")]


def test_the_crash_points_are_all_there(tmp_path: Path) -> None:
    assert effects_of_an_undisturbed_run(tmp_path) == 12


@pytest.mark.parametrize(("number", "when"), crash_points())
def test_a_crash_at_any_effect_loses_and_doubles_nothing(
    tmp_path: Path, number: int, when: Literal["before", "after"]
) -> None:
    effects = Effects(crash_at=number, crash_when=when)
    tried = rig(tmp_path, engine=FakeEngine(train, effects=effects))
    run_with_crash(tried)
    state = tried.state()
    assert (state.state, state.trials[1].state) == ("COMPLETED", "COMPLETED")
    assert tried.reports() == expected()
    assert [run.run for run in state.trials[1].runs] == [0]
    assert [c.steps_completed for c in state.trials[1].progress.checkpoints] == [6, 4, 2]
    assert len([name for name in effects.done if name.startswith("create ")]) == 1
    assert tried.engine.containers == {}
    assert state.trials[1].progress.steps_completed == BATCHES
