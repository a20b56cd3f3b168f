from __future__ import annotations

import pytest

from detbuild.api.report import read_all, read_experiments
from tests.experiments import Report, write_experiment


@pytest.fixture
def experiment(client):
    config = {"environment": {"environment_variables": ["TOKEN=secret1"]}, "name": "mnist"}
    write_experiment(client.path, [[Report(n, 1 / n) for n in range(1, 200)]], config=config)
    return client.experiment(1)


def test_curves_are_downsampled_to_the_points_of_a_page(experiment):
    (source,) = read_experiments([experiment], points=50)
    (validation,) = [table for table in source.tables[1] if table.group == "validation"]
    assert (validation.records, 50 >= len(validation.steps) > 0) == (199, True)


def test_the_end_of_each_log_is_read(experiment):
    (source,) = read_experiments([experiment], points=50)
    assert source.logs[1].text.startswith("INFO: begun")
    assert not source.logs[1].cut


def test_secrets_of_the_config_are_known_and_masked(experiment):
    (source,) = read_experiments([experiment], points=50)
    assert "secret1" not in str(source.config)
    assert "secret1" not in source.secrets.hide("a secret1 here")


def test_missing_files_are_skipped(experiment):
    (experiment.path / "config.json").unlink()
    (source,) = read_all([experiment.folder])
    assert (source.config, source.dockerfile) == ({}, "")
