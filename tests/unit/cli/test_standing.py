from __future__ import annotations

import io

import pytest
from rich.console import Console

from detbuild.cli.live import Live
from detbuild.cli.search_table import search_table
from detbuild.cli.standing import Search
from detbuild.cli.views import HEARTBEAT, Plain
from detbuild.events import ExperimentCreated, ExperimentEnded, RunEnded, RunRecord, RunStarted, TrialQueued
from detbuild.store.progress import Goal
from determined._records import Measured, Progress, Validation
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
    search.note(RunEnded(1, 0, 0, "", retry=False))
    search.note(RunEnded(2, 0, 1, "boom", retry=False))
    assert search.summary() == "2 of 16 done, 1 running, 1 failed; best trial 3: loss=0.333333"


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


def test_what_waits_says_why_and_a_retried_trial_waits():
    search = searched(2)
    search.note(RunEnded(1, 0, 1, "boom", retry=True))
    search.note(TrialQueued(1, "no GPU is free"))
    assert (search.trials[1].state, search.trials[1].why) == ("waiting", "no GPU is free")


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
    plain = Plain(clock := Clock())
    for number in (1, 2):
        plain.emit(RunStarted(number, 0, "", ()))
    assert "0 of 2 done" not in capfd.readouterr().err
    clock.now = HEARTBEAT
    plain.emit(RunRecord(1, 0, Progress(0.5)))
    assert capfd.readouterr().err == "0 of 2 done, 2 running\n"


def test_a_search_on_a_terminal_ends_with_its_table(tmp_path, capfd):
    folder = experiment(tmp_path, 2)
    with Live() as live:
        live.emit(ExperimentCreated(folder.id, str(folder.path)))
        for number in (1, 2):
            live.emit(RunStarted(number, 0, "", ("0",)))
            live.emit(RunRecord(number, 0, Validation(5, {"validation_loss": number / 4})))
            live.emit(RunEnded(number, 0, 0, "", retry=False))
        live.emit(ExperimentEnded(folder.id, "COMPLETED", ""))
    out, err = capfd.readouterr()
    assert "best trial 1: validation_loss=0.25" in err
    assert f"experiment {folder.id} COMPLETED" in out
