"""`create` where it hands over: to the run that asked for the class, or to the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from determined.experimental import create
from determined.experimental._handover import TrialGiven, handover

HARNESS = Path(__file__).parents[4] / "harness"


class Mine:
    pass


def test_a_run_that_expects_the_class_gets_it():
    with handover(), pytest.raises(TrialGiven) as given:
        create(Mine, {"name": "ignored"}, context_dir=".")
    assert given.value.trial_class is Mine


def test_a_run_with_another_entrypoint_goes_past_the_call(make_run, monkeypatch):
    info = make_run(entrypoint="model_def:Mine")
    monkeypatch.setenv("DETBUILD_RUN_DIR", info.run_dir)
    assert create(Mine) is None


@pytest.mark.parametrize("call", ["create(object)", "create_trial_instance(object, 'x')"])
def test_without_detbuild_it_says_where_it_works(call, tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"from determined.experimental import *\n{call}"],
        check=False,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HARNESS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    name = call.partition("(")[0]
    assert done.returncode == 1
    assert f"determined.experimental.{name} works on a host, but detbuild is not installed" in done.stderr
