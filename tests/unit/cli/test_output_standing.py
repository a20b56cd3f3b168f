from __future__ import annotations

import io

import pytest
from rich.console import Console

from detbuild.cli.output import LinesView, LiveView, Search, search_table
from detbuild.events import (
    ExperimentCreated,
    ExperimentEnded,
    RunEnded,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
)
from detbuild.progress import HEARTBEAT
from detbuild.store.state import Goal
from determined._contract.records import Measured, Progress, Validation
from tests.synthetic import HOSTILE, experiment


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def searched(trials=3):
    search = Search(clock=Clock(), goal=Goal("loss"), planned=16)
    for number in range(1, trials + 1):
        search.note(RunStarted(number, 0, "c", (str(number),)))
        search.note(RunRecord(number, 0, Validation(10, {"loss": 1 / number})))
    return search


def test_the_summary_counts_and_names_the_best():
    search = searched()
    search.note(SearchAdvanced(0.25, 0.0))
    for number, state in ((1, "COMPLETED"), (2, "ERROR")):
        search.note(RunEnded(number, 0, number - 1, "", retry=False))
        search.note(TrialEnded(number, state))
    assert search.summary() == "2 of 16 ended, 1 running, 1 error; 25 %; best trial 3: loss=0.333333"


def test_between_two_segments_a_trial_waits_for_the_search_and_then_for_a_slot():
    search = searched(1)
    trial = search.trials[1]
    search.note(RunEnded(1, 0, 0, "", retry=False))
    assert (trial.state, trial.why) == ("WAITING", "paused by the search")
    search.note(TrialDelayed(1, "the only GPU is in use"))
    assert (trial.state, trial.why) == ("QUEUED", "the only GPU is in use")
    assert search.summary().startswith("0 of 16 ended, 1 queued;")
    search.note(RunStarted(1, 1, "c", ()))
    assert (trial.state, trial.why) == ("RUNNING", "")
    search.note(TrialEnded(1, "CANCELED"))
    assert (trial.state, search.summary().partition(";")[0]) == ("CANCELED", "1 of 16 ended, 1 canceled")


def test_the_number_of_trials_of_a_grid_comes_with_their_share():
    search = Search(clock=Clock())
    search.note(SearchAdvanced(0.0, 1 / 7))
    search.note(RunStarted(1, 0, "c", ()))
    search.note(RunRecord(1, 0, Progress(0.5)))
    assert search.summary() == "0 of 7 ended, 1 running; 7 %"


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
    search = Search(goal=Goal("loss"))
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


def test_the_time_left_comes_from_what_this_run_did():
    search = searched(1)
    search.clock.now = 60.0
    search.note(RunRecord(1, 0, Progress(0.25)))
    assert search.time_left(search.trials[1]) == "3 min"


def test_the_rate_comes_from_the_throughput_group():
    search = searched(1)
    search.note(RunRecord(1, 0, Measured("throughput", 10, {"batches_per_second": 5.0})))
    assert search.trials[1].rate == "5 batches/s"
    search.note(RunRecord(1, 0, Measured("throughput", 10, {"records_per_second": 320.0})))
    assert search.trials[1].rate == "320 records/s"


def test_what_waits_says_why_and_a_retried_trial_is_queued():
    search = searched(2)
    search.note(RunEnded(1, 0, 1, "boom", retry=True))
    search.note(TrialDelayed(1, "no GPU is free"))
    assert (search.trials[1].state, search.trials[1].why) == ("QUEUED", "no GPU is free")


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


def test_a_search_off_a_terminal_sums_up_now_and_then(capfd):
    plain = LinesView(clock := Clock())
    for number in (1, 2):
        plain.emit(RunStarted(number, 0, "", ()))
    assert "0 of 2 ended" not in capfd.readouterr().err
    clock.now = HEARTBEAT
    plain.emit(RunRecord(1, 0, Progress(0.5)))
    assert capfd.readouterr().err == "0 of 2 ended, 2 running; 0 %\n"


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
