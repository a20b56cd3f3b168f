from __future__ import annotations

import io

import pytest

from detbuild.api.logs import LineRange
from detbuild.store import journal
from detbuild.store.logs import LogFilter
from tests.experiments import write_experiment


@pytest.fixture
def experiment(client):
    write_experiment(client.path)
    return client.experiment(1)


def lines(experiment, *, trial_id=1, selected=None, **part):
    return [
        line.message for line in experiment.logs(trial_id).lines(selected or LogFilter(), LineRange(**part))
    ]


def test_lines_pass_a_filter(experiment):
    assert lines(experiment, selected=LogFilter(stdtypes=("stderr",))) == ["ERROR: broken", "  at line 3"]
    assert lines(experiment, head=1) == ["INFO: begun"]
    assert lines(experiment, tail=1) == ["  at line 3"]


def test_following_ends_with_the_trial(experiment):
    assert lines(experiment, follow=True)[0] == "INFO: begun"


def test_a_trial_that_does_not_exist_has_no_lines_and_ends_with_its_experiment(experiment):
    assert lines(experiment, trial_id=9, follow=True) == []


def test_streams_are_copied_byte_for_byte(experiment):
    out, error = io.BytesIO(), io.BytesIO()
    experiment.logs(1).copy({"stdout": out, "stderr": error}, LineRange())
    assert out.getvalue() == experiment.trial(1).run_path(0).joinpath("stdout.log").read_bytes()
    assert error.getvalue() == b"ERROR: broken\n  at line 3\n"


def test_the_last_lines_are_copied_over_all_runs(client, experiment):
    folder = experiment.folder
    folder.record(journal.RunIntended(trial_id=1, run=1))
    folder.run(1, 1).path.mkdir()
    folder.run(1, 1).output("stderr").write_bytes(b"again\n")
    out = io.BytesIO()
    experiment.logs(1).copy({"stderr": out}, LineRange(tail=2))
    assert out.getvalue() == b"  at line 3\nagain\n"
