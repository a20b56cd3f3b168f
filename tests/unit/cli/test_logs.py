from __future__ import annotations

import json
import threading
import time

import pytest

from detbuild.store import journal
from detbuild.store.state import load
from tests.experiments import write_experiment
from tests.unit.cli.shells import FINISHED


@pytest.fixture
def logs(shell):
    def command(*words: str) -> tuple[int, bytes, bytes]:
        outcome = shell("detbuild", "logs", *words)
        return outcome.code, *(text.encode("utf-8", "surrogateescape") for text in (outcome.out, outcome.err))

    return command


def test_both_streams_come_out_byte_for_byte(shell, logs):
    shell.experiment()
    assert logs("1") == (0, b"one\ntwo\nthree\n", b"warn \xff\x1b[31mred\n")


def test_stderr_alone_comes_on_stdout(shell, logs):
    shell.experiment()
    assert logs("1", "--stderr") == (0, b"warn \xff\x1b[31mred\n", b"")


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("--head", "2"), b"one\ntwo\n"),
        (("--tail", "1"), b"three\n"),
        (("--tail", "0"), b""),
        (("--tail", "9"), b"one\ntwo\nthree\n"),
    ],
)
def test_head_and_tail_count_lines(shell, logs, words, out):
    shell.experiment()
    assert logs("1", *words)[:2] == (0, out)


def test_head_goes_not_with_follow(shell, logs):
    shell.experiment()
    assert logs("1", "--head", "1", "-f")[0] == 2


def test_all_runs_of_a_trial_come_in_order(shell, logs):
    folder = shell.experiment()
    second = folder.run(1, 1)
    second.path.mkdir()
    second.output("stdout").write_bytes(b"again\n")
    assert logs("1")[1] == b"one\ntwo\nthree\nagain\n"
    assert logs("1", "--tail", "2")[1] == b"three\nagain\n"


def test_a_trial_that_is_not_there_is_an_error(shell, logs):
    shell.experiment()
    assert logs("1", "--trial", "2")[0] == 2


def test_following_ends_with_the_trial_and_misses_nothing(shell, logs):
    folder = shell.experiment(finished=None)

    def train() -> None:
        with folder.run(1, 0).output("stdout").open("ab") as file:
            for word in (b"four\n", b"five", b" and a half\n"):
                time.sleep(0.05)
                file.write(word)
                file.flush()
        folder.record(FINISHED)
        folder.record(journal.TrialFinished(trial_id=1, state="COMPLETED"))

    trainer = threading.Thread(target=train)
    trainer.start()
    outcome = logs("1", "-f", "--tail", "1")
    trainer.join()
    assert outcome[:2] == (0, b"three\nfour\nfive and a half\n")


def test_the_logs_of_several_experiments_come_in_turn(shell, logs):
    shell.experiment()
    shell.experiment()
    code, out, _ = logs("1,2", "--tail", "1")
    assert (code, out) == (
        0,
        b"==> experiment 1, trial 1 <==\nthree\n==> experiment 2, trial 1 <==\nthree\n",
    )
    assert logs("1", "9")[0] == 2


@pytest.fixture
def folder(shell):
    return write_experiment(shell.home)


def test_filters_choose_lines_and_each_goes_to_the_stream_it_came_from(shell, folder):
    outcome = shell("detbuild", "logs", "1", "--level", "warning")
    assert (outcome.out, outcome.err) == (
        "[rank=1] WARNING: slow\n[rank=1] because\n",
        "ERROR: broken\n  at line 3\n",
    )
    assert shell("det", "t", "logs", "1", "--rank-id", "1").err == ""
    assert shell("det", "e", "logs", "1", "--stdtype", "stderr").out == ""
    assert (
        shell("detbuild", "logs", "1", "--stderr", "--level", "ERROR").out == "ERROR: broken\n  at line 3\n"
    )
    assert shell("det", "t", "logs", "1", "--container-id", "other").out == ""


def test_head_and_tail_count_the_lines_that_were_chosen(shell, folder):
    assert shell("detbuild", "logs", "1", "--rank-id", "1", "--tail", "1").out == "[rank=1] because\n"
    assert shell("detbuild", "logs", "1", "--rank-id", "1", "--head", "1").out == "[rank=1] WARNING: slow\n"


def test_for_programs_each_line_is_an_object_with_the_documented_keys(shell, folder):
    lines = [json.loads(line) for line in shell("detbuild", "logs", "1", "--json").out.splitlines()]
    assert lines[1] == {
        "trial": 1,
        "run": 0,
        "container": "c1ffee",
        "stdtype": "stdout",
        "rank": 1,
        "level": "WARNING",
        "message": "[rank=1] WARNING: slow",
    }
    text = shell("detbuild", "logs", "--help").out
    assert [key for key in lines[1] if f'"{key}"' not in text] == []


def test_times_choose_runs(shell, folder):
    run = load(folder).trials[1].runs[0]
    assert shell("detbuild", "logs", "1", "--timestamp-after", str(run.ended + 1)).out == ""
    assert shell("detbuild", "logs", "1", "--timestamp-after", "2001-01-01T00:00:00Z").out != ""
    assert shell("detbuild", "logs", "1", "--timestamp-before", "2001-01-01").out == ""
    assert shell("detbuild", "logs", "1", "--timestamp-before", "yesterday").code == 2


def test_following_with_a_filter_ends_with_the_trial(shell, folder):
    assert shell("detbuild", "logs", "1", "-f", "--rank-id", "1").out.endswith("because\n")


def test_filters_of_a_cluster_are_said_to_have_no_effect(shell, folder):
    outcome = shell("det", "t", "logs", "1", "--agent-id", "a", "--source", "master")
    assert outcome.out.startswith("INFO: begun")
    assert "--agent-id has no effect" in outcome.err
    assert "--source has no effect" in outcome.err
