from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.controller.policies import PolicyWatch, policies_of
from detbuild.store.experiment_dir import RunFolder
from tests.fakes import Exit, FakeEngine
from tests.faults.training import CONFIG, rig
from tests.unit.controller.test_trial import fail

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.fakes import Process

NEVER_AGAIN = {"name": "no data", "pattern": ".*No such (file|bucket).*", "action": "cancel_retries"}


def watch(path: Path, *policies: dict[str, str]) -> PolicyWatch:
    return PolicyWatch(
        RunFolder(path), policies_of(config_from_mapping({**CONFIG, "log_policies": policies}))
    )


def names(found: list[object]) -> list[str]:
    return [policy.name for policy in found]


def test_the_output_is_looked_through_as_it_grows_and_each_policy_matches_once(tmp_path: Path) -> None:
    watched = watch(tmp_path, NEVER_AGAIN)
    assert watched.matched(()) == []
    with (tmp_path / "stderr.log").open("a") as log:
        log.write("all is well\nNo such fi")
        log.flush()
        assert watched.matched(()) == []
        log.write("le: /data\nNo such file: /more\n")
        log.flush()
        assert names(watched.matched(())) == ["no data"]
    (tmp_path / "stdout.log").write_text("No such bucket\ntorch.OutOfMemoryError: CUDA out of memory. Tried")
    assert watched.matched(()) == []
    assert names(watched.matched((), over=True)) == ["CUDA OOM"]


def test_what_the_journal_knows_is_not_looked_for_again(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text("No such file\n")
    assert watch(tmp_path, NEVER_AGAIN).matched(("no data",)) == []


def test_a_name_without_a_pattern_switches_a_default_off(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text("CUDA out of memory\nuncorrectable ECC error encountered\n")
    assert names(watch(tmp_path, {"name": "CUDA OOM"}).matched(())) == ["ECC Error"]


@pytest.mark.parametrize("pattern", ["(a+)+$", ".*(a|aa)+$"])
def test_a_pattern_that_takes_for_ever_is_given_up(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "stdout.log").write_text("a" * 200 + "b\n")
    watched = watch(tmp_path, {"name": "slow", "pattern": pattern})
    began = time.monotonic()
    assert watched.matched(()) == []
    assert watched.matched(()) == []
    assert time.monotonic() - began < 3


def test_long_output_is_looked_at_in_parts(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_text("x\n" * 5000 + "No such file\n")
    watched = watch(tmp_path, NEVER_AGAIN)
    assert [names(watched.matched(())) for _ in range(4)] == [[], [], ["no data"], []]


def test_a_policy_may_cancel_retries_and_is_named(tmp_path: Path) -> None:
    def program(process: Process) -> Exit:
        (process.run_dir / "stdout.log").write_text("No such file: /data/x\n")
        return fail()(process)

    changes = {"max_restarts": 5, "log_policies": [NEVER_AGAIN]}
    state = rig(tmp_path, engine=FakeEngine(program), changes=changes).run()
    trial = state.trials[1]
    assert (state.state, len(trial.runs), trial.runs[0].policies) == ("ERROR", 1, ("no data",))
    assert trial.why == "boom; its log matches the policy no data, which cancels retries"


def test_a_policy_without_an_action_is_shown_while_the_run_goes_on(tmp_path: Path) -> None:
    def program(process: Process) -> Generator[None, None, Exit]:
        (process.run_dir / "stderr.log").write_text("uncorrectable ECC error encountered\n")
        while True:
            yield

    tried = rig(tmp_path, engine=FakeEngine(program))
    controller = tried.controller()
    for _ in range(4):
        controller.step()
        tried.clock.wait(1.1)
    assert (tried.state().state, tried.state().why) == ("RUNNING", "its log matches the policy ECC Error")
    before = len(tried.folder.journal())
    for _ in range(3):
        tried.controller().step()
        tried.clock.wait(1.1)
    assert len(tried.folder.journal()) == before
