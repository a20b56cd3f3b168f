"""Pause, activate, cancel, kill and continue, of experiments and of single trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.controller import requests
from detbuild.controller.requests import continue_, needs_controller, request
from detbuild.errors import ConfigError, SearchError
from detbuild.search.method import TrialEnded
from detbuild.store import journal
from detbuild.store.experiment_dir import config_of
from determined._contract.run_info import Length, RunInfo
from tests.fakes import Exit, FakeEngine
from tests.faults.searching import Halving, Random, made
from tests.faults.training import Rig, expected, loss_after, rig, train

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from detbuild.search.method import Action, SearchEvent
    from tests.fakes import Process


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are the controller."""
    monkeypatch.setattr(requests, "start_detached", lambda folder, held: None)


def look(tried: Rig, times: int) -> None:
    controller = tried.controller()
    for _ in range(times):
        controller.step()
        tried.clock.wait(1.1)


def start_of(trial_id: int) -> float:
    return float(str(made(trial_id).hparams["start"]))


def test_a_paused_experiment_holds_no_container_and_needs_no_controller(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 3)
    tried.folder.request("pause")
    state = tried.run()
    assert (state.state, state.trials[1].state, tried.engine.containers) == ("PAUSED", "PAUSED", {})
    assert 0 < state.trials[1].progress.checkpoints[0].steps_completed < 6
    assert not needs_controller(tried.folder)
    assert tried.controller().done is False
    tried.controller().step()
    assert tried.engine.containers == {}


def test_an_activated_experiment_goes_on_without_a_restart_or_a_pause(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 3)
    tried.folder.request("pause")
    tried.run()
    tried.folder.request("activate")
    assert needs_controller(tried.folder)
    began = tried.clock.now()
    state = tried.run()
    assert (state.state, state.trials[1].restarts, len(state.trials[1].runs)) == ("COMPLETED", 0, 2)
    assert tried.clock.now() - began < 5
    assert tried.reports() == expected()


def test_while_it_stops_a_paused_experiment_says_so(tmp_path: Path) -> None:
    def deaf(process: Process) -> Generator[None, None, Exit]:
        while True:
            yield

    tried = rig(tmp_path, engine=FakeEngine(deaf))
    look(tried, 2)
    tried.folder.request("pause")
    look(tried, 2)
    assert tried.state().state == "STOPPING_PAUSED"


def test_an_experiment_that_is_created_paused_starts_nothing(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.folder.request("pause")
    assert (tried.run().state, tried.state().trials, tried.engine.containers) == ("PAUSED", {}, {})
    tried.folder.request("activate")
    assert tried.run().state == "COMPLETED"
    assert tried.reports() == expected()


@pytest.mark.parametrize(
    ("verbs", "state", "why"),
    [
        (("pause", "cancel"), "CANCELED", "cancelled on request"),
        (("cancel", "pause", "activate"), "CANCELED", "cancelled on request"),
        (("pause", "kill", "activate"), "CANCELED", "killed on request"),
        (("kill", "cancel"), "CANCELED", "killed on request"),
        (("pause", "activate"), "COMPLETED", ""),
    ],
)
def test_kill_wins_over_cancel_and_cancel_over_pause(
    tmp_path: Path, verbs: tuple[str, ...], state: str, why: str
) -> None:
    tried = rig(tmp_path)
    look(tried, 2)
    for verb in verbs:
        tried.folder.request(verb)
    found = tried.run()
    assert (found.state, found.why) == (state, why)
    assert tried.engine.containers == {}


def test_a_paused_experiment_can_be_killed(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 3)
    tried.folder.request("pause")
    tried.run()
    request(tried.home, 1, "kill")
    assert needs_controller(tried.folder)
    assert (tried.run().state, tried.state().why) == ("CANCELED", "killed on request")


def test_each_request_is_heeded_once(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    for verb in ("pause", "activate", "pause"):
        tried.folder.request(verb)
    tried.run()
    tried.folder.request("activate")
    tried.run()
    applied = [e.fact.number for e in tried.folder.journal() if isinstance(e.fact, journal.RequestApplied)]
    assert applied == [1, 2, 3, 4]


def test_one_trial_may_be_killed_and_the_others_go_on(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(3, at_once=3))
    look(tried, 2)
    request(tried.home, 1, "kill", 2)
    state = tried.run()
    assert state.state == "COMPLETED"
    assert [(t.state, t.why) for t in state.trials.values()] == [
        ("COMPLETED", ""),
        ("CANCELED", "killed on request"),
        ("COMPLETED", ""),
    ]
    assert tried.reports(3) == expected(start=start_of(3))
    ends = [e.fact.event for e in tried.folder.journal() if isinstance(e.fact, journal.Searched)]
    assert {"kind": "trial_ended", "trial_id": 2, "reason": "canceled"} in ends


def test_one_trial_may_be_cancelled_after_a_checkpoint(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(2, at_once=2))
    look(tried, 2)
    request(tried.home, 1, "cancel", 1)
    trial = tried.run().trials[1]
    assert (trial.state, trial.runs[0].finished.outcome) == ("CANCELED", "preempted")
    assert trial.progress.checkpoints[0].steps_completed == trial.progress.steps_completed


def test_when_all_trials_were_killed_one_by_one_the_experiment_is_cancelled(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(2, at_once=2))
    look(tried, 2)
    for trial_id in (1, 2):
        request(tried.home, 1, "kill", trial_id)
    assert tried.run().state == "CANCELED"


def test_cancelling_a_search_ends_its_trials_and_makes_no_others(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(10, at_once=3))
    look(tried, 2)
    tried.folder.request("cancel")
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("CANCELED", ["CANCELED"] * 3)
    assert all(trial.progress.checkpoints for trial in state.trials.values())


def test_a_cancelled_search_that_is_continued_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Halving())
    look(tried, 4)
    tried.folder.request("cancel")
    assert tried.run().state == "CANCELED"
    continue_(tried.home, 1)
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 4)
    for trial_id, length in {1: 6, 2: 4, 3: 2, 4: 2}.items():
        assert tried.reports(trial_id) == expected(length, start_of(trial_id))


@pytest.mark.parametrize("pausing", [True, False], ids=["paused", "completed"])
def test_a_trial_may_be_trained_longer(tmp_path: Path, *, pausing: bool) -> None:
    tried = rig(tmp_path)
    if pausing:
        look(tried, 3)
        tried.folder.request("pause")
    assert tried.run().state == ("PAUSED" if pausing else "COMPLETED")
    before = tried.state().trials[1].progress
    continue_(tried.home, 1, ("searcher.max_length.batches=10",))
    state = tried.run()
    assert (state.state, state.trials[1].restarts) == ("COMPLETED", 0)
    assert tried.reports() == expected(10)
    uuids = [checkpoint.uuid for checkpoint in state.trials[1].progress.checkpoints]
    assert uuids[-len(before.checkpoints) :] == [checkpoint.uuid for checkpoint in before.checkpoints]
    assert RunInfo.load(tried.folder.run(1, 1).path).checkpoints[0] == before.checkpoints[0].uuid


RANDOM = {"name": "random", "max_trials": 3, "max_concurrent_trials": 2}
ASHA = {"name": "async_halving", "num_rungs": 2, "divisor": 2, "max_trials": 2}


def searching(searcher: Mapping[str, object]) -> Mapping[str, object]:
    common = {"metric": "accuracy", "smaller_is_better": False, "max_length": {"batches": 6}}
    return {"searcher": {**common, **searcher}}


@pytest.mark.parametrize("looks", [3, 0], ids=["paused", "completed"])
def test_all_trials_of_a_random_search_train_longer_also_those_that_are_yet_to_come(
    tmp_path: Path, looks: int
) -> None:
    tried = rig(tmp_path, changes=searching(RANDOM))
    if looks:
        look(tried, looks)
        tried.folder.request("pause")
    assert len(tried.run().trials) == (2 if looks else 3)
    continue_(tried.home, 1, ("searcher.max_length.batches=10",))
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 3)
    assert [tried.reports(trial_id) for trial_id in state.trials] == [expected(10)] * 3


def test_a_length_that_was_changed_once_stays_changed(tmp_path: Path) -> None:
    tried = rig(tmp_path, changes=searching(RANDOM))
    look(tried, 3)
    for length in (8, 10):
        tried.folder.request("pause")
        tried.run()
        continue_(tried.home, 1, (f"searcher.max_length.batches={length}",))
    state = tried.run()
    assert [tried.reports(trial_id) for trial_id in state.trials] == [expected(10)] * 3


def test_the_progress_counts_trials_that_are_yet_to_come(tmp_path: Path) -> None:
    tried = rig(tmp_path, changes=searching({**RANDOM, "max_trials": 4, "max_concurrent_trials": 1}))
    assert tried.state().progress == 0
    while len(tried.state().trials) < 2:
        look(tried, 1)
    assert tried.state().progress == 0.25
    assert tried.run().progress == 1
    continue_(tried.home, 1, ("searcher.max_length.batches=10",))
    while not tried.state().trials[1].runs[1:]:
        look(tried, 1)
    assert tried.state().progress == 0


def test_a_search_in_legs_counts_itself(tmp_path: Path) -> None:
    tried = rig(tmp_path, changes=searching({**ASHA, "max_trials": 4, "max_concurrent_trials": 1}))
    found = set()
    while not tried.state().over:
        look(tried, 1)
        found.add(round(tried.state().progress, 2))
    assert found >= {0, 0.21, 0.42, 1}


def test_a_search_that_decided_by_its_lengths_keeps_them(tmp_path: Path) -> None:
    tried = rig(tmp_path, changes=searching(ASHA))
    tried.run()
    with pytest.raises(ConfigError, match="max_length of the searcher async_halving cannot be changed"):
        continue_(tried.home, 1, ("searcher.max_length.batches=10",))
    with pytest.raises(ConfigError, match="there is nothing to continue") as refused:
        continue_(tried.home, 1)
    assert "max_length" not in refused.value.hint


def test_changes_may_come_from_a_file_below_the_overrides(tmp_path: Path) -> None:
    tried = rig(tmp_path / "home")
    tried.run()
    file = tmp_path / "changes.yaml"
    file.write_text("searcher: {max_length: {batches: 8}}\nmax_restarts: 1\n")
    continue_(tried.home, 1, ("max_restarts=2",), file)
    assert tried.run().state == "COMPLETED"
    config = config_of(tried.folder)
    assert (config.max_restarts, config.searcher.max_length) == (2, Length("batches", 8))
    assert tried.reports() == expected(8)


def test_a_length_that_was_left_to_the_code_stays_left_to_it(tmp_path: Path) -> None:
    searcher = {"name": "single", "metric": "accuracy", "smaller_is_better": False}
    tried = rig(tmp_path, changes={"searcher": searcher, "entrypoint": "python3 train.py"})
    look(tried, 3)
    tried.folder.request("pause")
    tried.run()
    continue_(tried.home, 1, ("max_restarts=1",))
    assert tried.run().state == "COMPLETED"
    assert config_of(tried.folder).searcher.max_length is None


def test_an_experiment_that_was_killed_before_it_began_begins(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.folder.request("pause")
    tried.run()
    tried.folder.request("kill")
    assert tried.run().state == "CANCELED"
    continue_(tried.home, 1)
    assert (tried.run().state, tried.reports()) == ("COMPLETED", expected())


def test_a_search_that_failed_goes_on_also_when_all_its_trials_are_completed(tmp_path: Path) -> None:
    repaired: list[bool] = []

    class Failing(Random):
        def decide(self, event: SearchEvent) -> Sequence[Action]:
            if isinstance(event, TrialEnded) and not repaired:
                raise SearchError("no idea what comes next")
            return super().decide(event)

    tried = rig(tmp_path, method=lambda _: Failing(2, at_once=1))
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("ERROR", ["COMPLETED"])
    repaired.append(True)
    continue_(tried.home, 1)
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 2)


def test_trials_that_were_killed_one_by_one_run_again(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(3, at_once=3))
    look(tried, 2)
    request(tried.home, 1, "kill", 2)
    assert [t.state for t in tried.run().trials.values()] == ["COMPLETED", "CANCELED", "COMPLETED"]
    continue_(tried.home, 1)
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 3)
    assert tried.reports(2) == expected(start=start_of(2))


def fails_until(go: list[bool]) -> Callable[[Process], Exit | Generator[None, None, Exit]]:
    def program(process: Process) -> Exit | Generator[None, None, Exit]:
        bad = RunInfo.load(process.run_dir).trial_id == 2 and not go
        return Exit(2, output=("no such data",)) if bad else train(process)

    return program


def test_a_failed_trial_of_a_search_runs_again(tmp_path: Path) -> None:
    go: list[bool] = []
    engine = FakeEngine(fails_until(go))
    tried = rig(tmp_path, engine=engine, method=lambda _: Random(3, at_once=1))
    assert [t.state for t in tried.run().trials.values()] == ["COMPLETED", "ERROR", "COMPLETED"]
    go.append(True)
    continue_(tried.home, 1)
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 3)
    assert [len(t.runs) for t in state.trials.values()] == [1, 2, 1]
    assert tried.reports(2) == expected(start=start_of(2))


def test_an_experiment_that_was_continued_may_be_continued_again(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.run()
    for length in (8, 10):
        continue_(tried.home, 1, (f"searcher.max_length.batches={length}",))
        assert tried.run().state == "COMPLETED"
    assert tried.reports()[-1].steps_completed == 10
    assert tried.reports()[-2].metrics == {"loss": loss_after(10)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "there is nothing to continue"),
        (("hyperparameters.lr=1",), "hyperparameters.lr cannot be changed"),
        (("searcher.metric=loss",), "searcher.metric cannot be changed"),
        (("reproducibility.experiment_seed=1",), "reproducibility.experiment_seed cannot be changed"),
    ],
)
def test_what_was_decided_by_cannot_be_changed(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    tried = rig(tmp_path)
    tried.run()
    with pytest.raises(ConfigError, match=message):
        continue_(tried.home, 1, overrides)
    assert not needs_controller(tried.folder)


def test_what_goes_on_cannot_be_continued(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 2)
    with pytest.raises(ConfigError, match="is running; it must be paused or have ended"):
        continue_(tried.home, 1)


def test_a_trial_that_is_not_there_cannot_be_killed(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    look(tried, 1)
    with pytest.raises(ConfigError, match="has no trial 7"):
        request(tried.home, 1, "kill", 7)


@pytest.mark.parametrize(
    ("verb", "before"), [("kill", "over"), ("pause", "paused"), ("activate", "going on")]
)
def test_what_is_so_already_is_not_asked_for(tmp_path: Path, verb: str, before: str) -> None:
    tried = rig(tmp_path)
    if before == "over":
        tried.run()
    elif before == "paused":
        tried.folder.request("pause")
        tried.run()
    asked = tried.folder.inbox().after(0)
    request(tried.home, 1, verb)
    assert tried.folder.inbox().after(0) == asked


def test_continue_starts_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = rig(tmp_path)
    tried.run()
    started: list[int] = []
    monkeypatch.setattr(requests, "resume_one", lambda folder: started.append(folder.id))
    continue_(tried.home, 1, ("searcher.max_length.batches=8",))
    assert started == [1]
