from __future__ import annotations

import pytest

from detbuild.store import journal
from detbuild.store.loglines import Level, LogFilter, TrialLines, some
from detbuild.store.state import load
from tests.experiments import write_experiment


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "home")


def messages(folder, **wanted):
    lines = TrialLines(folder, LogFilter(**wanted)).new(load(folder).trials[1])
    return [line.message for line in lines]


def test_all_lines_come_stdout_first(folder):
    assert messages(folder) == [
        "INFO: begun",
        "[rank=1] WARNING: slow",
        "[rank=1] because",
        "ERROR: broken",
        "  at line 3",
    ]


def test_a_line_without_a_level_has_that_of_the_one_before_it(folder):
    assert messages(folder, min_level=Level.ERROR) == ["ERROR: broken", "  at line 3"]
    assert messages(folder, min_level=Level.WARNING)[:2] == ["[rank=1] WARNING: slow", "[rank=1] because"]


def test_lines_are_chosen_by_rank_stream_and_container(folder):
    assert messages(folder, ranks=(1,)) == ["[rank=1] WARNING: slow", "[rank=1] because"]
    assert messages(folder, ranks=(0,)) == ["INFO: begun", "ERROR: broken", "  at line 3"]
    assert messages(folder, stdtypes=("stderr",)) == ["ERROR: broken", "  at line 3"]
    assert len(messages(folder, containers=("c1ff",))) == 5
    assert messages(folder, containers=("other",)) == []


def test_a_time_chooses_whole_runs(folder):
    run = load(folder).trials[1].runs[0]
    assert messages(folder, before=run.started) == []
    assert len(messages(folder, before=run.started + 1)) == 5
    assert messages(folder, after=run.ended) == []
    assert len(messages(folder, after=run.ended - 1)) == 5


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("DEBUG: [12] root: x", Level.DEBUG),
        ("[rank=3] CRITICAL: x", Level.CRITICAL),
        ("[2026-01-01 10:00:00] WARN x", Level.WARNING),
        ("FATAL: x", Level.CRITICAL),
        ("Information is no level", Level.INFO),
        ("ERRORS are no level", Level.INFO),
        ("nothing", Level.INFO),
    ],
)
def test_the_level_is_the_word_that_a_line_begins_with(folder, text, level):
    folder.run(1, 0).output("stdout").write_text(f"{text}\n")
    (line,) = TrialLines(folder, LogFilter(stdtypes=("stdout",))).new(load(folder).trials[1])
    assert line.level is level


def test_a_second_look_gives_what_came_since_and_a_torn_line_only_when_the_run_is_over(tmp_path):
    folder = write_experiment(tmp_path / "home", state=None)
    file = folder.run(1, 0).output("stdout")
    file.write_bytes(b"one\ntw")
    lines = TrialLines(folder, LogFilter(stdtypes=("stdout",)))
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["one"]
    file.write_bytes(b"one\ntwo\nthr")
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["two"]
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="completed"))
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["thr"]


def test_the_first_or_the_last_lines_may_be_asked_for(folder):
    def some_of(**which):
        lines = TrialLines(folder, LogFilter()).new(load(folder).trials[1])
        return [line.message for line in some(lines, which.get("head"), which.get("tail"))]

    assert some_of(head=1) == ["INFO: begun"]
    assert some_of(tail=1) == ["  at line 3"]
    assert len(some_of()) == 5
