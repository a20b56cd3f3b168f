from __future__ import annotations

from tests.synthetic import experiment


def test_a_report_is_one_file_and_its_name_is_printed(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment(shell.home, 2)
    outcome = shell("detbuild", "report", "1")
    assert (outcome.code, outcome.out) == (0, "report.html\n")
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_report_can_compare_experiments_on_stdout(shell):
    for trials in (1, 2):
        experiment(shell.home, trials)
    page = shell("detbuild", "report", "1", "2", "-o", "-").out
    assert '"experiments":[{"id":1,' in page
    assert '{"id":2,"name":"mnist_search"' in page


def test_a_report_of_an_experiment_that_is_not_there_is_an_error(shell):
    outcome = shell("detbuild", "report", "7")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: there is no experiment 7")


def test_a_report_into_a_directory_that_is_not_there_names_the_file(shell, tmp_path):
    experiment(shell.home, 1)
    outcome = shell("detbuild", "report", "1", "-o", str(tmp_path / "no" / "r.html"))
    assert outcome.code == 4
    assert "r.html" in outcome.err
