"""The controller and the search: each event is told once, and what was decided is done."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import DiskFullError, SearchError
from detbuild.search.method import Began, Finish, TrialEnd, TrialEnded, Validated
from detbuild.store import journal
from determined._contract.run_info import Length, RunInfo
from tests.fakes import Exit, FakeEngine
from tests.faults.searching import Halving, Heirs, Random, Told, Watching, made
from tests.faults.training import Rig, expected, loss_after, rig, train

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from detbuild.search.method import Action, SearchEvent
    from tests.fakes import Process


def searched(tried: Rig) -> list[journal.Searched]:
    return [entry.fact for entry in tried.folder.journal() if isinstance(entry.fact, journal.Searched)]


def told(tried: Rig, kind: str) -> list[dict[str, object]]:
    return [dict(fact.event) for fact in searched(tried) if fact.event["kind"] == kind]


def start_of(trial_id: int) -> float:
    return float(str(made(trial_id).hparams["start"]))


def test_a_random_search_trains_all_its_trials_and_ends(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(5, at_once=2))
    state = tried.run()
    assert (state.state, [trial.state for trial in state.trials.values()]) == ("COMPLETED", ["COMPLETED"] * 5)
    for trial_id in range(1, 6):
        assert tried.reports(trial_id) == expected(start=start_of(trial_id))
    assert len(told(tried, "began")) == 1
    assert sorted(event["trial_id"] for event in told(tried, "validated")) == [1, 2, 3, 4, 5]
    assert {event["reason"] for event in told(tried, "trial_ended")} == {"completed"}


def test_no_more_trials_run_at_once_than_the_search_made(tmp_path: Path) -> None:
    most = Counter[int]()

    class Watched(FakeEngine):
        def start(self, container: str) -> None:
            super().start(container)
            most[sum(c.status == "running" for c in self.containers.values())] += 1

    rig(tmp_path, engine=Watched(train), method=lambda _: Random(6, at_once=2)).run()
    assert max(most) == 2


def test_promoted_trials_go_on_from_where_they_were(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Halving())
    state = tried.run()
    assert state.state == "COMPLETED"
    assert [len(trial.runs) for trial in state.trials.values()] == [3, 2, 1, 1]
    assert [trial.restarts for trial in state.trials.values()] == [0, 0, 0, 0]
    for trial_id, length in {1: 6, 2: 4, 3: 2, 4: 2}.items():
        assert tried.reports(trial_id) == expected(length, start_of(trial_id))
    times = [(event["trial_id"], event["time"]) for event in told(tried, "validated")]
    assert sorted(times) == [(1, 2.0), (1, 4.0), (1, 6.0), (2, 2.0), (2, 4.0), (3, 2.0), (4, 2.0)]
    lengths = [RunInfo.load(tried.folder.run(1, run).path).max_length for run in range(3)]
    assert lengths == [Length("batches", count) for count in (2, 4, 6)]


def test_a_longer_leg_follows_without_a_pause(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Halving(trials=2, lengths=(2, 4)))
    began = tried.clock.now()
    tried.run()
    assert tried.clock.now() - began < 6


def test_between_its_legs_a_trial_waits_for_the_search(tmp_path: Path) -> None:
    def slow(process: Process) -> Generator[None, None, Exit]:
        if RunInfo.load(process.run_dir).trial_id > 1:
            while True:
                yield
        return (yield from train(process))

    tried = rig(tmp_path, engine=FakeEngine(slow), method=lambda _: Halving(trials=2))
    controller = tried.controller()
    for _ in range(100):
        controller.step()
        tried.clock.wait(0.5)
    first = tried.state().trials[1]
    assert (first.state, first.why, first.open_run) == ("WAITING", "paused by the search", None)
    assert len(tried.engine.containers) == 1


def test_a_watching_search_hears_every_validation_and_stops_trials(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Watching())
    state = tried.run()
    assert state.state == "COMPLETED"
    assert [(t.state, t.why) for t in state.trials.values()] == [
        ("COMPLETED", "stopped by the search"),
        ("COMPLETED", "stopped by the search"),
        ("COMPLETED", "stopped by the search"),
    ]
    first = [event["time"] for event in told(tried, "validated") if event["trial_id"] == 1]
    assert first == [2.0, 4.0, 6.0]
    assert [event["time"] for event in told(tried, "validated") if event["trial_id"] == 2] == [2.0]
    checkpoints = state.trials[2].progress.checkpoints
    assert checkpoints[0].steps_completed == state.trials[2].progress.steps_completed < 6
    assert RunInfo.load(tried.folder.run(1, 0).path).milestones == (2, 4)


def test_a_repeated_validation_is_not_told_again(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Watching(trials=1))
    controller = tried.controller()
    while not told(tried, "validated"):
        controller.step()
        tried.clock.wait(0.5)
    (container,) = tried.engine.containers
    tried.engine.end(container, 137)
    events = tried.folder.run(1, 0).path / "events.jsonl"  # as if it had died before its first checkpoint
    lines = [line for line in events.read_bytes().splitlines(keepends=True) if b'"checkpoint"' not in line]
    events.write_bytes(b"".join(lines))
    state = tried.run()
    assert [event["time"] for event in told(tried, "validated")] == [2.0, 4.0, 6.0]
    assert tried.reports() == expected(start=start_of(1))
    assert len(state.trials[1].runs) == 2


def test_a_trial_may_start_from_another_ones_newest_checkpoint(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Heirs())
    state = tried.run()
    parent = state.trials[1].progress.checkpoints
    info = RunInfo.load(tried.folder.run(2, 0).path)
    assert (info.warm_start, info.checkpoints) == (True, tuple(c.uuid for c in parent))
    first = tried.reports(2)[0]
    inherited = loss_after(4, start_of(1))
    assert first.metrics["loss"] == inherited * 0.9 + 1 / (1 + inherited)


def failing(*trials: int) -> object:
    def program(process: Process) -> Exit | Generator[None, None, Exit]:
        return (
            Exit(1, output=("boom",)) if RunInfo.load(process.run_dir).trial_id in trials else train(process)
        )

    return program


def test_one_completed_trial_makes_the_search_a_success(tmp_path: Path) -> None:
    tried = rig(tmp_path, engine=FakeEngine(failing(1, 3)), method=lambda _: Random(3, at_once=3))
    state = tried.run()
    assert (state.state, [t.state for t in state.trials.values()]) == (
        "COMPLETED",
        ["ERROR", "COMPLETED", "ERROR"],
    )
    assert Counter(event["reason"] for event in told(tried, "trial_ended")) == {"errored": 2, "completed": 1}


def test_a_search_whose_trials_all_fail_has_failed(tmp_path: Path) -> None:
    state = rig(tmp_path, engine=FakeEngine(failing(1, 2)), method=lambda _: Random(2, at_once=2)).run()
    assert state.state == "ERROR"
    assert "boom" in state.why


class Stalled(Told):
    """Makes a trial and forgets it."""

    def next(self, event: SearchEvent) -> Sequence[Action]:
        return (made(1),) if isinstance(event, Began) else ()


class Broken(Told):
    def next(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Validated):
            raise SearchError("the hook does not answer", hint="see its log")
        return Random(1, at_once=2).next(event)


@pytest.mark.parametrize(
    ("method", "why"),
    [(Stalled, "neither continues nor ends"), (Broken, "the hook does not answer; see its log")],
)
def test_a_search_that_cannot_go_on_ends_the_experiment(tmp_path: Path, method: type[Told], why: str) -> None:
    tried = rig(tmp_path, method=lambda _: method())
    state = tried.run()
    assert (state.state, why in state.why) == ("ERROR", True)
    assert tried.engine.containers == {}


def test_a_search_that_changed_its_mind_is_not_continued(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(3, at_once=1))
    tried.controller().step()
    tried.method = lambda _: Random(3, at_once=2)
    with pytest.raises(SearchError, match="it would decide"):
        tried.controller()


def test_while_there_is_no_room_to_write_a_decision_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Random(2, at_once=1)
    tried = rig(tmp_path, method=lambda _: method)
    controller = tried.controller()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", _no_room)
        for _ in range(5):
            controller.step()
    assert [type(event) for event in method.events] == [Began]
    while not controller.context.state.over:
        controller.step()
        tried.clock.wait(0.5)
    assert Counter(type(event) for event in method.events) == {Began: 1, Validated: 2, TrialEnded: 2}
    assert len(told(tried, "began")) == 1


def _no_room(path: Path, entry: journal.Entry) -> None:
    raise DiskFullError(f"no free space to write {path}")


def test_invalid_hyperparameters_are_told_to_the_search(tmp_path: Path) -> None:
    def invalid(process: Process) -> Exit:
        lines = [
            {"kind": "started", "pid": 1, "python": "3", "harness": "0"},
            {"kind": "ended", "reason": "invalid_hp", "message": "lr is 0"},
            {"kind": "exited", "code": 0},
        ]
        run = RunInfo.load(process.run_dir).name
        text = "".join(
            json.dumps({"seq": seq, "run": run, "time": 0.0, **line}) + "\n"
            for seq, line in enumerate(lines, 1)
        )
        (process.run_dir / "events.jsonl").write_text(text)
        return Exit(0)

    tried = rig(tmp_path, engine=FakeEngine(invalid), method=lambda _: Random(1, at_once=1))
    state = tried.run()
    assert (state.state, state.trials[1].why) == ("COMPLETED", "lr is 0")
    assert [event["reason"] for event in told(tried, "trial_ended")] == [TrialEnd.INVALID_HP.value]
    assert told(tried, "validated") == []
    assert [raw["kind"] for raw in searched(tried)[-1].actions] == [Finish.kind]


SEARCHERS = (
    {"name": "random", "max_trials": 5, "max_concurrent_trials": 2, "max_length": 6},
    {"name": "async_halving", "num_rungs": 2, "divisor": 2, "max_trials": 5, "max_length": 6},
    {
        "name": "async_halving",
        "num_rungs": 2,
        "divisor": 2,
        "max_trials": 5,
        "max_length": 6,
        "stop_once": True,
    },
    {"name": "adaptive_asha", "max_trials": 6, "divisor": 2, "max_length": 6},
    {"name": "sync_halving", "num_rungs": 2, "divisor": 2, "budget": 40, "max_length": 6},
    {
        "name": "pbt",
        "population_size": 4,
        "num_rounds": 2,
        "length_per_round": {"batches": 2},
        "replace_function": {"truncate_fraction": 0.25},
    },
)


@pytest.mark.parametrize("searcher", SEARCHERS, ids=lambda searcher: str(searcher["name"]))
def test_the_searches_of_detbuild_come_to_their_end_whoever_drives_them(
    tmp_path: Path, searcher: dict[str, object]
) -> None:
    goal = {"metric": "accuracy", "smaller_is_better": False}
    tried = rig(tmp_path, changes={"searcher": {**searcher, **goal}})
    state, looks = tried.state(), 0
    while not state.over:
        controller = tried.controller()  # another one again and again: all has to be recalled
        for _ in range(7):
            controller.step()
            tried.clock.wait(0.7)
        state, looks = tried.state(), looks + 1
        assert looks < 300, state
    assert state.state == "COMPLETED"
    assert {trial.state for trial in state.trials.values()} == {"COMPLETED"}
    assert [trial.restarts for trial in state.trials.values()] == [0] * len(state.trials)
    events = [str(fact.event) for fact in searched(tried)]
    assert len(events) == len(set(events))
    assert searched(tried)[-1].actions[-1]["kind"] == "finish"


def test_without_a_length_the_code_of_the_trial_decides(tmp_path: Path) -> None:
    searcher = {"name": "single", "metric": "accuracy", "smaller_is_better": False}
    tried = rig(tmp_path, changes={"searcher": searcher, "entrypoint": ["python3", "train.py"]})
    assert tried.run().state == "COMPLETED"
    assert RunInfo.load(tried.folder.run(1, 0).path).max_length is None
    assert [event["time"] for event in told(tried, "validated")] == [6.0]
