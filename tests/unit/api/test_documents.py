from __future__ import annotations

from tests.experiments import Report, handle, write_experiment


def test_a_description_extends_the_row_of_a_listing(client):
    folder = write_experiment(client.path, [[Report(1, 0.5)]], config={"description": "as submitted"})
    experiment = handle(folder)
    (row,) = client.listed()
    described = experiment.described(experiment.state())
    assert described.items() >= row.document.items()
    assert (described["description"], described["notes"]) == ("as submitted", "")


def test_a_changed_description_wins_over_the_submitted_one(client):
    experiment = handle(write_experiment(client.path, config={"description": "as submitted"}))
    experiment.change(description="", notes="mine")
    described = experiment.described(experiment.state())
    assert (described["description"], described["notes"]) == ("", "mine")


def test_an_unknown_metric_is_null(client):
    write_experiment(client.path, [[]])
    (row,) = client.listed()
    assert (row.document["metric"], row.document["best"]) == ("loss", None)


def test_trials_have_their_own_checkpoints(client):
    experiment = handle(write_experiment(client.path, [[Report(1, 0.5)], [Report(1, 0.4), Report(2, 0.3)]]))
    rows = experiment.trial_documents(experiment.state())
    assert [len(row["checkpoints"]) for row in rows] == [1, 2]
    assert rows[1]["best"] == {"steps_completed": 2, "metrics": {"loss": 0.3, "accuracy": 0.5}}
