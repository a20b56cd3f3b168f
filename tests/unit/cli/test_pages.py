"""What is said last about an experiment."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.checkpoint.find import checkpoints_of
from detbuild.cli.pages import (
    SHOWN,
    bar,
    curve,
    encodable,
    ending_page,
    experiment_page,
    next_commands,
    sparkline,
)
from detbuild.store import journal
from detbuild.store.state import load
from tests.experiments import Report, handle, write_experiment
from tests.faults.training import rig
from tests.synthetic import HOSTILE, experiment

if TYPE_CHECKING:
    from pathlib import Path


def test_the_checkpoint_that_is_named_at_the_end_is_the_best_of_all_trials(tmp_path: Path) -> None:
    folder = write_experiment(
        tmp_path, [[Report(1, 0.9), Report(2, 0.5)], [Report(1, 0.1), Report(2, 0.3)], [Report(1, 0.4)]]
    )
    state, found = (
        load(folder),
        {(c.trial_id, c.checkpoint.steps_completed): c for c in checkpoints_of(folder)},
    )
    assert "loss=0.1" in ending_page(handle(folder), state)
    assert f"  checkpoint       {found[2, 1].directory}\n" in ending_page(handle(folder), state)
    assert f"detbuild checkpoint download {found[2, 1].checkpoint.uuid} -o DIR" in next_commands(
        handle(folder), state
    )


def test_without_any_that_was_validated_it_is_the_newest(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, [[Report(1, float("nan")), Report(2, float("nan"))]])
    newest = checkpoints_of(folder)[0]
    assert newest.checkpoint.steps_completed == 2
    assert newest.checkpoint.uuid in next_commands(handle(folder), load(folder))


def test_what_could_not_be_uploaded_is_said_at_the_end(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path)
    assert "pending" not in ending_page(handle(folder), load(folder))
    folder.record(journal.StorageBlocked(why="the bucket is gone"))
    assert ending_page(handle(folder), load(folder)).startswith("  pending          the bucket is gone\n")


numbers = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("trials", [2, 5, 500])
def test_a_search_fits_on_a_screen_whatever_its_size(tmp_path, trials):
    folder = experiment(tmp_path, trials)
    page = experiment_page(handle(folder), load(folder))
    assert len(page.splitlines()) <= SHOWN + 14
    assert "1 running" in page
    assert ("error      1: RuntimeError" in page) == (trials > 2)


def test_the_best_trials_come_first(tmp_path):
    folder = experiment(tmp_path, 50)
    lines = experiment_page(handle(folder), load(folder)).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("TRIAL")) + 1 :]
    values = [float(line.split()[2]) for line in table[:SHOWN]]
    assert values == sorted(values)
    assert table[SHOWN] == "and 40 more trials: det experiment list-trials 1"


def test_the_table_fits_a_terminal_and_leaves_out_what_is_the_same_in_all_trials(tmp_path):
    folder = experiment(tmp_path, 20)
    page = experiment_page(handle(folder), load(folder), 80)
    table = page[page.index("TRIAL") :].splitlines()
    assert max(map(len, table)) <= 80
    assert "layers=" in experiment_page(handle(folder), load(folder))
    assert "global_batch_size" not in experiment_page(handle(folder), load(folder))


def test_a_failure_that_came_again_is_told_once(tmp_path):
    folder = write_experiment(tmp_path / "home", [[]], state=None)
    for run in range(3):
        if run:
            folder.record(journal.RunIntended(trial_id=1, run=run))
        folder.record(
            journal.RunFinished(
                trial_id=1, run=run, outcome="user_error", message="boom", hint="less", tail=("line",)
            )
        )
    page = experiment_page(handle(folder), load(folder))
    assert page.count("boom") == page.count("hint: less") == page.count("| line") == 1
    assert "as run 2" in page


def test_hostile_names_do_not_act_on_the_terminal(tmp_path):
    folder = experiment(tmp_path, 5, name=HOSTILE)
    page = experiment_page(handle(folder), load(folder))
    assert not {"\x1b", "\u202e", "\u2028"} & set(page)


def test_one_trial_has_a_chart_of_its_metric(tmp_path):
    folder = experiment(tmp_path, 1, points=50)
    page = experiment_page(handle(folder), load(folder))
    assert "validation_loss over batches 50 to 500" in page
    assert any("\u2800" < char <= "\u28ff" for char in page)


@given(st.lists(numbers), st.integers(1, 50))
def test_a_sparkline_is_never_wider_than_asked_for(values, width):
    assert len(sparkline(values, width)) <= width


def test_a_sparkline_shows_low_and_high():
    assert sparkline([0, 1, 0.5]) == "▁█▅"


@given(st.lists(numbers))
def test_a_curve_takes_any_numbers(values):
    lines = curve([(float(i), value) for i, value in enumerate(values)], width=10, height=3)
    assert [len(line) for line in lines] in ([], [10, 10, 10])


def test_a_curve_goes_from_the_first_point_to_the_last():
    assert curve([(0, 1), (1, 0)], width=1, height=1) == ("⢣",)


def test_a_bar_stays_within_its_ends():
    assert (bar(0.5, 4), bar(-1, 4), bar(7, 4)) == ("[##--] 50 %", "[----] 0 %", "[####] 100 %")


def test_a_terminal_without_these_characters_gets_ascii():
    assert encodable("▁█⢣⠀é", "ascii") == "_@* \\xe9"
    assert encodable("▁█⢣", "utf-8") == "▁█⢣"


def test_an_experiment_without_a_controller_says_how_to_resume_it(tmp_path):
    tried = rig(tmp_path)
    tried.controller().step()
    for name in ("journal.jsonl", "experiment.json"):
        os.utime(tried.folder.path / name, (0, 0))
    second = experiment_page(handle(tried.folder), tried.state()).splitlines()[2]
    assert second.startswith("blocked    no controller is running: detbuild resume 1")


def test_hyperparameters_are_shown_whole_or_counted(tmp_path):
    names = [f"a_rather_long_name_{index}" for index in range(6)]
    folder = write_experiment(tmp_path, trials=[[Report(10, 0.1 * n)] for n in range(1, 4)])
    state = load(folder)
    trials = {id_: replace(trial, hparams=dict.fromkeys(names, id_)) for id_, trial in state.trials.items()}
    page = experiment_page(handle(folder), replace(state, trials=trials), 80)
    rows = page[page.index("TRIAL") :].splitlines()[1:4]
    assert all("a_rather_long_name_0=" in row and row.endswith("... and 5 more") for row in rows)
