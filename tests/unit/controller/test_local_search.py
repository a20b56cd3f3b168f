"""A local experiment runs its trials one after the other, with the same search and segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.controller import loop
from detbuild.controller.local import finish_pending, run_here
from detbuild.store import journal
from detbuild.store.home import Home
from detbuild.store.state import load
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.records import Ended, ExitReason, Training, Validation
from determined._run.events import EventFile
from tests.faults.searching import Halving, Random, Told, Watching, made
from tests.faults.training import expected, loss_after, restore, save, submit, trajectory

if TYPE_CHECKING:
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState
    from determined._contract.run_info import RunInfo


def train(info: RunInfo) -> int:
    """What the program of the fault tests does, in this process."""
    checkpoints = Path(info.checkpoint_dir)
    contract_checkpoints.prepare(checkpoints)
    events = EventFile(Path(info.run_dir) / "events.jsonl", info.name)
    batch, loss = restore(info, checkpoints, events)
    assert info.max_length
    while batch < info.max_length.count:
        batch += 1
        loss = loss * 0.9 + 1 / (batch + loss)
        events.append(Training(batch, {"loss": loss}))
        if batch % 2 == 0:
            events.append(Validation(batch, {"accuracy": 1 / (1 + loss)}))
            save(checkpoints, events, batch, loss)
    events.append(Ended(ExitReason.COMPLETED))
    events.close()
    return 0


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Told, program: object = train
) -> tuple[ExperimentFolder, ExperimentState]:
    monkeypatch.setattr(loop, "search_method", lambda *_: method)
    folder = submit(Home.open(tmp_path), "")
    return folder, run_here(folder, program, lambda event: None)


def start_of(trial_id: int) -> float:
    return float(str(made(trial_id).hparams["start"]))


def test_a_search_in_legs_runs_locally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = run(tmp_path, monkeypatch, Halving())
    assert state.state == "COMPLETED"
    assert [len(trial.runs) for trial in state.trials.values()] == [3, 2, 1, 1]
    for trial_id, length in {1: 6, 2: 4, 3: 2, 4: 2}.items():
        assert trajectory(folder, state.trials[trial_id]) == expected(length, start_of(trial_id))
    intended = [e.fact for e in folder.journal() if isinstance(e.fact, journal.RunIntended)]
    assert [(fact.trial_id, fact.run) for fact in intended[:4]] == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_a_watching_search_hears_of_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Watching(trials=1)
    _, state = run(tmp_path, monkeypatch, method)
    assert (state.state, state.trials[1].progress.steps_completed) == ("COMPLETED", 6)
    assert len(method.events) == 5  # began, three validations, the end


def test_a_local_trial_that_fails_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_fails(info: RunInfo) -> int:
        return 3 if info.trial_id == 2 else train(info)

    _, state = run(tmp_path, monkeypatch, Random(3, at_once=1), second_fails)
    assert (state.state, [t.state for t in state.trials.values()]) == (
        "COMPLETED",
        ["COMPLETED", "ERROR", "COMPLETED"],
    )
    assert len(state.trials[2].runs) == 1


def test_a_local_search_whose_process_is_gone_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(info: RunInfo) -> int:
        if info.trial_id == 2:
            raise KeyboardInterrupt
        return train(info)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, monkeypatch, Random(4, at_once=2), dies)
    folder = Home.open(tmp_path).folder(1)
    raw = json.loads(folder.config_file.read_bytes())
    raw["searcher"] = {**raw["searcher"], "name": "random", "max_trials": 4, "max_concurrent_trials": 2}
    folder.config_file.write_text(json.dumps(raw))
    finish_pending(folder)  # without its search, which may no longer exist
    state = load(folder)
    assert (state.state, state.why) == ("ERROR", "its process ended before the search did")
    assert [t.state for t in state.trials.values()][:2] == ["COMPLETED", "ERROR"]
    assert all(trial.ended for trial in state.trials.values())
    assert loss_after(6, start_of(1)) == trajectory(folder, state.trials[1])[-2].metrics["loss"]
