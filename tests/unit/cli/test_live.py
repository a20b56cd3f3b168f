from __future__ import annotations

import io

import pytest
from rich.console import Console

from detbuild.cli.live import LiveView, search_table
from detbuild.events import (
    ExperimentCreated,
    ExperimentEnded,
    RunEnded,
    RunRecord,
    RunStarted,
    TrialDelayed,
)
from detbuild.progress import SearchProgress
from detbuild.store.experiment_dir import Goal
from determined._contract.records import Validation
from tests.synthetic import HOSTILE, experiment


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def searched(trials=3):
    search = SearchProgress(clock=Clock(), goal=Goal("loss"), planned=16)
    for number in range(1, trials + 1):
        search.note(RunStarted(number, 0, "c", (str(number),)))
        search.note(RunRecord(number, 0, Validation(10, {"loss": 1 / number})))
    return search


@pytest.mark.parametrize(
    ("gpus", "width", "columns"),
    [
        ((), 120, "trial state best loss latest batch"),
        (("0",), 120, "trial state best loss latest batch GPU"),
        (("0",), 90, "trial state best latest batch GPU"),
        (("0",), 60, "trial state best"),
    ],
)
def test_columns_with_nothing_in_them_are_left_out(gpus, width, columns):
    search = SearchProgress(goal=Goal("loss"))
    search.note(RunStarted(1, 0, "c", gpus))
    search.note(RunRecord(1, 0, Validation(10, {"loss": 1.0})))
    console = Console(file=io.StringIO(), width=width)
    console.print(search_table(search, width=width, height=20))
    assert console.file.getvalue().splitlines()[0].split() == columns.split()


def test_what_a_trial_waits_for_does_not_move_the_other_columns():
    search = searched(2)
    before = shown(search)
    search.note(RunEnded(2, 0, 0, "", retry=False))
    search.note(TrialDelayed(2, "all 2 GPUs in use"))
    after = shown(search)
    assert after[0] == f"{before[0]}  reason"
    assert after[2].endswith("  all 2 GPUs in use")


@pytest.mark.parametrize("width", [35, 80, 120])
def test_a_narrow_terminal_cuts_the_reason_and_nothing_else(width):
    search = searched(2)
    before = shown(search, width)
    search.note(RunEnded(2, 0, 0, "", retry=False))
    search.note(TrialDelayed(2, "all 2 GPUs in use: " + 40 * "very "))
    after = shown(search, width)
    assert after[0].removesuffix("  reason") == before[0]
    assert after[2].startswith("2      queued   0.5")


def shown(search, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(search_table(search, width=width, height=20))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [1, 5, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 10, 50])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_the_table_fits_any_terminal(width, height, encoding):
    search = searched(100)
    search.goal = Goal(HOSTILE)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")  # as stderr
    console = Console(file=file, width=width, height=height, force_terminal=True, no_color=True)
    console.print(search_table(search, width=width, height=height))
    file.flush()
    shown = file.buffer.getvalue().decode(encoding)
    assert "\u202e" not in shown
    assert len(shown.splitlines()) <= max(height, 2) + 1


def test_a_search_on_a_terminal_ends_with_its_table(tmp_path, capfd):
    folder = experiment(tmp_path, 2)
    with LiveView() as live:
        live.emit(ExperimentCreated(folder.id, str(folder.path)))
        for number in (1, 2):
            live.emit(RunStarted(number, 0, "", ("0",)))
            live.emit(RunRecord(number, 0, Validation(5, {"validation_loss": number / 4})))
            live.emit(RunEnded(number, 0, 0, "", retry=False))
        live.emit(ExperimentEnded(folder.id, "COMPLETED", ""))
    out, err = capfd.readouterr()
    assert "best trial 1: validation_loss=0.25" in err
    assert f"experiment {folder.id} completed" in out
