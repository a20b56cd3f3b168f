"""Many experiments, and many trials: what one more costs does not depend on how many there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detbuild.controller import requests
from detbuild.controller.requests import resume
from detbuild.search.method import Close, Create, Train, TrialEnd, TrialEnded, to_json
from detbuild.store import journal
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from detbuild.store.state import StateFold
from tests.fakes import FakeEngine
from tests.faults.searching import Random
from tests.faults.training import Rig, rig, submit, train

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEADER = Header(id=1, name="n", context_name="c", created=0.0)


def life(trial_id: int) -> list[journal.Fact]:
    """The facts of one trial, from its making to its end."""
    create = Create(trial_id=trial_id, request_id="r", seed=1, hparams={"lr": 0.1})
    actions = (create, Train(trial_id=trial_id), Close(trial_id=trial_id))
    end = to_json(TrialEnded(trial_id=trial_id, reason=TrialEnd.COMPLETED))
    return [
        journal.Searched(event={"kind": "began"}, actions=tuple(map(to_json, actions))),
        journal.RunIntended(trial_id=trial_id, run=0),
        journal.RunCreated(trial_id=trial_id, run=0, container="c"),
        journal.RunFinished(trial_id=trial_id, run=0, outcome="completed"),
        journal.TrialFinished(trial_id=trial_id, state="COMPLETED"),
        journal.Searched(event=end),
    ]


def seconds_for(ledger: StateFold, trial_ids: range) -> float:
    facts = [journal.Entry(0.0, fact) for trial_id in trial_ids for fact in life(trial_id)]
    began = time.process_time()
    for entry in facts:
        ledger.enter(entry)
    return time.process_time() - began


def test_a_fact_costs_the_same_after_ten_thousand_trials() -> None:
    ledger = StateFold(HEADER)
    first = min(seconds_for(ledger, range(start, start + 200)) for start in (1, 201, 401))
    seconds_for(ledger, range(1000, 11_000))
    last = min(seconds_for(ledger, range(start, start + 200)) for start in (20_000, 21_000, 22_000))
    assert last < 5 * first  # it was proportional to the trials: 50 times as much
    assert (ledger.living, len(ledger.trials), ledger.unreported) == (0, 11_200, {})


def test_the_controller_keeps_nothing_of_trials_that_are_over(tmp_path: Path) -> None:
    tried = rig(tmp_path, method=lambda _: Random(20, at_once=2))
    controller = tried.controller()
    while not controller.context.state.over:
        controller.step()
        tried.clock.wait(0.5)
        assert len(controller._drivers) <= 2
    assert all(not trial.runs and not trial.hparams for trial in controller.context.state.trials.values())
    assert [len(trial.runs) for trial in tried.state().trials.values()] == [1] * 20


def test_two_hundred_experiments_are_taken_up_at_once_and_each_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, engine = Home.open(tmp_path), FakeEngine(train)
    image = engine.add_image("detbuild:training")
    rigs = [Rig(home, engine, submit(home, image)) for _ in range(200)]
    for each in rigs:
        each.controller().step()
    started: list[int] = []
    monkeypatch.setattr(requests, "start_detached", lambda folder, _: started.append(folder.id))
    began = time.process_time()
    assert resume(home) == tuple(started) == tuple(range(1, 201))
    assert time.process_time() - began < 5
    before = set(engine.containers)
    for each in rigs:
        each.controller().step()
    assert set(engine.containers) == before
