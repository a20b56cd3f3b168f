from __future__ import annotations

import pytest

from detbuild.store.home import Home
from tests.experiments import Report, write_experiment

TRIALS = [
    [Report(1, 0.5, 0.9), Report(2, 0.4, 0.1)],
    [Report(1, 0.1, 0.2), Report(2, 0.2, 0.3)],
    [Report(1, 0.3, 0.8)],
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Home.open(tmp_path / "home")


@pytest.fixture
def search(home):
    return write_experiment(home.path, TRIALS, config={"description": "as submitted"})
