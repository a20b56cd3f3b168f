"""The client as a shim: what its import costs, what it does in a container, whose names it has."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from detbuild import sdk
from determined.experimental import client
from tests.experiments import write_experiment

HARNESS = Path(__file__).parents[4] / "harness"


def run(body):
    return subprocess.run(
        [sys.executable, "-S", "-c", body],
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HARNESS)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_importing_the_client_imports_nothing_of_detbuild():
    done = run(
        "import sys\n"
        "from determined.experimental import Determined, client\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('detbuild', 'pydantic', 'torch')])"
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_script_that_logs_in_at_its_top_runs_in_a_container_too():
    done = run(
        "from determined.experimental import client\n"
        "client.login('http://master', 'me', 'secret', cert_path='x')\n"
        "client.logout()"
    )
    assert done.returncode == 0, done.stderr
    assert "login has no effect: there is no server" in done.stderr
    assert "secret" not in done.stderr


def test_where_detbuild_is_not_the_client_says_so():
    done = run("from determined.experimental import client\nclient.get_experiment(1)")
    assert done.returncode == 1
    assert (
        "HarnessError: determined.experimental.client works on a host, but detbuild is not installed here"
        in done.stderr
    )


def test_a_script_may_import_any_name_in_a_container_and_only_its_use_fails():
    done = run(
        "from determined.experimental.client import *\n"
        "def log(experiment: Experiment | None, state=None) -> Determined: ...\n"
        "print(isinstance(3, Experiment), hasattr(get_trial, '__wrapped__'))\n"
        "try: OrderBy.ASC\n"
        "except Exception as error: print(type(error).__name__, error.hint)\n"
        "Determined()"
    )
    said = "HarnessError call it where detbuild is installed; inside a run, use det.get_cluster_info()"
    assert done.stdout.splitlines() == ["False False", said], done.stderr
    assert (done.returncode, "HarnessError" in done.stderr) == (1, True)


def test_on_a_host_the_import_alone_loads_no_sdk():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from determined.experimental import client as c; print('detbuild' in sys.modules)",
        ],
        check=False,
        env={**os.environ, "PYTHONPATH": str(HARNESS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "False\n", done.stderr


def test_it_has_the_names_of_the_sdk_and_no_others():
    assert set(client.__all__) == {*sdk.__all__, "login", "logout"}
    assert dir(client) == sorted(client.__all__)
    assert all(getattr(client, name) is getattr(sdk, name) for name in sdk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Experimental'"):
        _ = client.Experimental


def test_its_objects_are_instances_of_its_classes_and_can_be_pickled(tmp_path, monkeypatch):
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path))
    write_experiment(tmp_path)
    experiment = client.get_experiment(1)
    trial = client.get_trial("1/1")
    assert isinstance(experiment, client.ExperimentReference)
    assert isinstance(trial, client.Trial)
    assert isinstance(experiment.state, client.ExperimentState)
    assert pickle.loads(pickle.dumps(client.OrderBy.DESC)) is client.OrderBy.DESC
    again = pickle.loads(pickle.dumps(experiment))
    assert (type(again), again.id, again.state) == (client.Experiment, 1, experiment.state)
