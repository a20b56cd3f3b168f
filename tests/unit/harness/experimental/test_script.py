"""The container's side: a script runs again and hands over its class. Each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from determined._contract.records import Ended, ExitReason, Stage, StageEntered, decode
from determined._contract.run_info import RunInfo

TRIAL = """
import os, pickle, sys
from determined._contract.records import ExitReason
from determined._trial.context import Trial
from determined.experimental import create

def train(trial_class, run):
    pickle.loads(pickle.dumps(trial_class))
    args = " ".join(sys.argv)
    run.report_validation(1, {"args": args, "class": trial_class.__name__, "beside": beside.VALUE})
    return ExitReason.COMPLETED

class Mine(Trial):
    _runner = "__main__:train"

import beside
"""


@pytest.fixture
def run(tmp_path):
    context = tmp_path / "context"
    (context / "sub").mkdir(parents=True)
    (context / "sub" / "beside.py").write_text("VALUE = 7\n")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (tmp_path / "checkpoints").mkdir()

    def run(script: str, *argv: str) -> tuple[subprocess.CompletedProcess[str], list[object]]:
        (context / "sub" / "train.py").write_text(script)
        command = ("python3", "-m", "determined.experimental.script", "sub/train.py", *argv)
        info = RunInfo(
            experiment_id=1,
            trial_id=1,
            run=0,
            trial_seed=1,
            slots=0,
            entrypoint=command,
            run_dir=str(run_dir),
            context_dir=str(context),
            context_name="context",
            checkpoint_dir=str(tmp_path / "checkpoints"),
        )
        info.save(run_dir)
        harness = str(Path(__file__).parents[4] / "harness")
        done = subprocess.run(
            check=False,
            args=[sys.executable, *command[1:]],
            cwd=context,
            env={**os.environ, "DETBUILD_RUN_DIR": str(run_dir), "PYTHONPATH": harness},
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = (run_dir / "events.jsonl").read_bytes().splitlines()
        return done, [decode(line).record for line in lines]

    return run


def test_the_class_of_a_script_is_trained_with_the_scripts_arguments(run):
    done, records = run(
        TRIAL + "create(Mine, context_dir='.')\nraise SystemExit('never reached')", "--lr", "1"
    )
    assert done.returncode == 0, done.stderr
    metrics = next(record.metrics for record in records if record.kind == "validation")
    assert metrics == {"args": "sub/train.py --lr 1", "class": "Mine", "beside": 7}
    assert records[-1] == Ended(ExitReason.COMPLETED)


def test_a_call_under_the_main_guard_is_reached(run):
    done, records = run(TRIAL + "if __name__ == '__main__':\n    create(trial_def=Mine)")
    assert done.returncode == 0, done.stderr
    assert records[-1] == Ended(ExitReason.COMPLETED)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "exit(3)"),
        ("x = (", "SyntaxError"),
    ],
)
def test_a_script_that_fails_before_create_is_hopeless_and_says_why(run, script, said):
    done, records = run(script)
    ended = records[-1]
    assert done.returncode == 2
    assert (ended.reason, ended.stage) == (ExitReason.NOT_RETRYABLE, Stage.IMPORT)
    assert ended.message.startswith("sub/train.py did not reach its call of determined.experimental.create: ")
    assert said in ended.message


def test_a_script_without_create_is_hopeless_and_says_so(run):
    _, records = run("x = 1")
    assert records[0] == StageEntered(Stage.IMPORT)
    assert records[-1].message == "sub/train.py ended without calling determined.experimental.create"


def test_outside_a_run_it_says_what_to_do():
    environ = {key: value for key, value in os.environ.items() if key != "DETBUILD_RUN_DIR"}
    command = [sys.executable, "-m", "determined.experimental.script", "x.py"]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: this module is for containers; run your script itself\n",
    )
