"""`create` as users call it: from a script, in a process of its own where it trains there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from detbuild.controller.loop import controller_of
from detbuild.errors import ConfigError, ExperimentError
from detbuild.runtime.docker import DockerRuntime
from detbuild.sdk.create import Reach, create_trial_instance, notebook_cells, reach, script_of
from detbuild.store.home import Home
from detbuild.store.state import load
from determined._contract.errors import InvalidTrialError
from determined._trial.context import Trial
from determined.experimental import create
from tests.fakes import Exit, FakeEngine, succeed

SCRIPT = """
import sys
from determined import InvalidHP
from determined._contract.records import ExitReason, Stage
from determined._trial.context import Trial
from determined.experimental import create

def train(trial_class, run):
    run.enter(Stage.BUILD)
    trial = trial_class(run)
    run.enter(Stage.TRAIN)
    trial.train()
    run.report_training(3, {"loss": 0.5})
    run.enter(Stage.VALIDATE)
    run.report_validation(3, {"validation_loss": run.info.hparams["lr"]})
    run.enter(Stage.CHECKPOINT)
    with run.store_checkpoint(3, {}) as (path, uuid):
        (path / "weights").write_bytes(b"123")
    return ExitReason.COMPLETED

class Mine(Trial):
    _runner = "__main__:train"

    def __init__(self, run):
        self.run = run

    def train(self):
        open("data.txt").read()

CONFIG = {
    "hyperparameters": {"lr": 0.25},
    "searcher": {"metric": "validation_loss"},
}
"""


@pytest.fixture
def run(tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "data.txt").write_text("some data")

    def run(body: str) -> subprocess.CompletedProcess[str]:
        (context / "train.py").write_text(SCRIPT + body)
        harness = str(Path(__file__).parents[3] / "harness")
        return subprocess.run(
            [sys.executable, str(context / "train.py")],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "DETBUILD_HOME": str(tmp_path / "home"), "PYTHONPATH": harness},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_local_test_says_every_stage_and_returns_nothing(run, tmp_path):
    done = run("print(create(Mine, CONFIG, local=True, test=True, context_dir='context'))")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    said = [line.removeprefix("INFO: ") for line in done.stderr.splitlines()]
    wanted = [
        "Running a minimal test experiment locally",
        "Hyperparameters: {'lr': 0.25}",
        "Importing the trial",
        "Creating the trial",
        "Training one batch",
        "Validating one batch",
        "Saving a checkpoint",
        f"The test experiment passed; its files are in {tmp_path}/home/experiments/1",
    ]
    assert [line for line in said if line in wanted] == wanted


def test_local_training_leaves_what_any_experiment_leaves(run, tmp_path):
    done = run("print(create(Mine, CONFIG, local=True, context_dir='context'))")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    folder = Home.open(tmp_path / "home").experiment(1)
    state = load(folder)
    progress = state.trials[1].progress
    assert (state.state, state.header.local, state.header.metric) == ("COMPLETED", True, "validation_loss")
    assert [v.metrics for v in progress.validations] == [{"validation_loss": 0.25}]
    assert [(c.steps_completed, c.state) for c in progress.checkpoints] == [(3, "COMPLETED")]
    assert (folder.checkpoints / progress.checkpoints[0].uuid / "weights").read_bytes() == b"123"


def test_sections_that_mean_nothing_here_are_said_to_be_ignored(run):
    config = "{**CONFIG, 'resources': {'slots_per_trial': 4}, 'environment': {'image': 'x'}}"
    done = run(f"create(Mine, {config}, local=True, test=True, context_dir='context', master_url='m')")
    assert done.returncode == 0, done.stderr
    for name in (
        "resources is ignored in local mode",
        "environment is ignored in local mode",
        "master_url is",
    ):
        assert f"INFO: {name}" in done.stderr


def test_a_config_may_be_a_file(run, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "entrypoint: x:Y\nhyperparameters: {lr: 1e-3}\n"
        "searcher: {name: single, metric: validation_loss, max_length: {batches: 1}}\n"
    )
    done = run("create(Mine, 'c.yaml', local=True, test=True, context_dir='context')")
    assert "Hyperparameters: {'lr': 0.001}" in done.stderr


def test_a_local_config_lies_over_a_template_and_not_over_defaults_for_containers(run, tmp_path):
    (tmp_path / "template.yaml").write_text("hyperparameters: {lr: 0.5, more: 1}\nscheduling_unit: 7\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.yaml").write_text("task_container_defaults: {preemption_timeout: 9}\n")
    done = run("create(Mine, CONFIG, local=True, context_dir='context', template='template.yaml')")
    assert "Hyperparameters: {'lr': 0.25, 'more': 1}" in done.stderr
    config = json.loads(Home.open(tmp_path / "home").experiment(1).config_file.read_bytes())
    assert (config["scheduling_unit"], config["preemption_timeout"]) == (7, None)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("__init__", "creating the trial failed: ValueError: no (train.py:"),
        ("train", "training failed: ValueError: no (train.py:"),
    ],
)
def test_each_failing_stage_is_named_and_ends_the_script(run, tmp_path, method, error):
    body = f"""
class Bad(Mine):
    def {method}(self, *_):
        raise ValueError("no")

create(Bad, CONFIG, local=True, test=True, context_dir="context")
"""
    done = run(body)
    assert done.returncode == 1
    assert f"detbuild.errors.ExperimentError: {error}" in done.stderr
    assert load(Home.open(tmp_path / "home").experiment(1)).state == "ERROR"


def test_hyperparameters_that_cannot_work_are_no_failure(run):
    body = """
class Bad(Mine):
    def train(self):
        raise InvalidHP

create(Bad, CONFIG, local=True, context_dir="context")
"""
    assert run(body).returncode == 0


def test_a_script_that_exits_inside_the_trial_is_a_failure(run):
    body = """
class Bad(Mine):
    def train(self):
        sys.exit(0)

create(Bad, CONFIG, local=True, context_dir="context")
"""
    done = run(body)
    assert done.returncode == 1
    assert "training failed: the trial called sys.exit(0)" in done.stderr


def test_the_callers_directory_and_path_are_as_before(run):
    body = """
import os
before = os.getcwd(), list(sys.path)
create(Mine, CONFIG, local=True, test=True, context_dir="context")
assert (os.getcwd(), sys.path) == before
"""
    done = run(body)
    assert done.returncode == 0, done.stderr


# submitting, with an engine in memory


class Mine(Trial):
    pass


@pytest.fixture
def engine(tmp_path, monkeypatch):
    engine = FakeEngine(succeed)
    for name in (
        "python:3.11-slim",
        "detbuild-base:cpu-debian12-py3.11",
        "detbuild-base:cpu-debian13-py3.13",
    ):
        engine.add_image(name)
    monkeypatch.setattr("detbuild.sdk.host.connect", lambda: engine)
    monkeypatch.setattr("detbuild.runtime.docker.lock_directory", lambda: tmp_path)
    monkeypatch.setattr(
        "detbuild.experiment.start_detached",
        lambda folder, _: controller_of(folder, DockerRuntime.of(folder, engine)).run(),
    )
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path / "home"))
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["context/train.py", "--epochs", "3"])
    return engine


def test_submitting_builds_the_context_and_runs_the_script_again_there(engine, tmp_path):
    assert create(Mine, {"resources": {"slots_per_trial": 0}}, context_dir="context") == 1
    config = json.loads(Home.open(tmp_path / "home").experiment(1).config_file.read_bytes())
    assert config["entrypoint"] == [
        "python3",
        "-m",
        "determined.experimental.script",
        "train.py",
        "--epochs",
        "3",
    ]
    (plan,) = engine.built
    assert [entry.path for entry in plan.trees["context"].entries] == ["train.py"]


def test_a_submitted_config_lies_over_a_template_and_the_hosts_config(engine, tmp_path):
    (tmp_path / "home" / "templates").mkdir(parents=True)
    (tmp_path / "home" / "templates" / "base.yaml").write_text("max_restarts: 2\nscheduling_unit: 7\n")
    (tmp_path / "home" / "config.yaml").write_text(
        "task_container_defaults: {preemption_timeout: 9, startup_hook: date}\n"
    )
    own = {"resources": {"slots_per_trial": 0}, "max_restarts": 1}
    assert create(Mine, own, context_dir="context", template="base") == 1
    folder = Home.open(tmp_path / "home").experiment(1)
    config = json.loads(folder.config_file.read_bytes())
    assert [config[name] for name in ("max_restarts", "scheduling_unit", "preemption_timeout")] == [1, 7, 9]
    assert folder.header().startup_hook == "date"


def test_the_context_directory_is_required_for_submitting():
    with pytest.raises(
        ConfigError, match="context_dir is required when local is False\n  hint: pass the directory"
    ):
        create(Mine)


def test_what_is_no_trial_class_is_refused():
    with pytest.raises(ConfigError, match="not a trial class"):
        create(int, context_dir=".")


def test_a_failed_test_in_the_container_raises(engine):
    engine.program = lambda _process: Exit(1)
    with pytest.raises(ExperimentError, match="the test of experiment 1 failed"):
        create(Mine, {"resources": {"slots_per_trial": 0}}, context_dir="context", test=True)


# the script or notebook that runs again


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("x = 1", "x = 1"),
        ("!pip install x", "pass  # !pip install x"),
        ("%matplotlib inline\nx = 1", "pass  # %matplotlib inline\nx = 1"),
        ("files = !ls\nx = 1", "pass  # files = !ls\nx = 1"),
        ("t = %timeit -o f()", "pass  # t = %timeit -o f()"),
        ("x.mean?", "pass  # x.mean?"),
        ("?x", "pass  # ?x"),
        ("if x:\n    !ls\nelse:\n    y = 1", "if x:\n    pass  # !ls\nelse:\n    y = 1"),
        ("%%time\nx = 1", "x = 1"),
        ("z = 7 \\\n  % x", "z = 7 \\\n  % x"),
        ('text = """\n!not a command\n"""', 'text = """\n!not a command\n"""'),
    ],
)
def test_a_cell_becomes_python(cell, python):
    assert script_of([cell]) == f"{python}\n"
    compile(script_of([cell]), "<script>", "exec")


def test_cells_in_other_languages_are_left_out():
    assert script_of(["x = 1", "%%bash\nrm -rf x", "", "y = 2"]) == "x = 1\n\ny = 2\n"


def test_the_code_cells_of_a_file_are_read_in_order(tmp_path):
    path = tmp_path / "nb.ipynb"
    cells = [
        {"cell_type": "code", "source": ["x = 1\n", "y = 2"]},
        {"cell_type": "markdown", "source": ["# title"]},
        {"cell_type": "code", "source": "z = 3"},
    ]
    path.write_text(json.dumps({"cells": cells}))
    assert notebook_cells(path) == ["x = 1\ny = 2", "z = 3"]


@pytest.mark.parametrize("text", [None, "no json", "{}", '{"cells": [{}]}'])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "nb.ipynb"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidTrialError, match="is not a notebook"):
        notebook_cells(path)


AGAIN = ("python3", "-m", "determined.experimental.script")


@pytest.fixture
def context(tmp_path, monkeypatch):
    directory = tmp_path / "context"
    (directory / "pkg").mkdir(parents=True)
    for name in ("train.py", "model_def.py", "pkg/__init__.py", "pkg/trial.py"):
        (directory / name).write_text("")
    monkeypatch.chdir(directory)
    return directory


def trial_of(module: str, file: object, monkeypatch, name: str = "Mine") -> type:
    """A class that looks as if it had been imported from that file."""
    found = ModuleType(module)
    found.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module, found)
    return type(name, (), {"__module__": module, "__qualname__": name})


def reached(trial_class, context, command=None) -> Reach:
    with reach(trial_class, context, command) as way:
        return way


@pytest.mark.parametrize("argv", [["train.py", "--lr", "1"], ["./train.py", "--lr", "1"]])
def test_the_running_script_runs_again_with_its_arguments(context, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    assert reached(type("T", (), {}), context) == Reach((*AGAIN, "train.py", "--lr", "1"))


def test_a_command_takes_the_place_of_the_running_script(context, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert reached(type("T", (), {}), context, ["pkg/trial.py", "x"]) == Reach((*AGAIN, "pkg/trial.py", "x"))


def test_a_command_is_looked_for_in_the_context_too(context, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert reached(type("T", (), {}), context, ["train.py"]) == Reach((*AGAIN, "train.py"))


@pytest.mark.parametrize("argv", [["-c"], [""], ["/usr/bin/pytest", "tests"]])
@pytest.mark.parametrize(
    ("module", "file", "entrypoint"),
    [
        ("model_def", "model_def.py", "model_def:Mine"),
        ("pkg.trial", "pkg/trial.py", "pkg.trial:Mine"),
        ("pkg", "pkg/__init__.py", "pkg:Mine"),
    ],
)
def test_without_a_script_of_the_context_the_class_is_imported_from_its_module(  # noqa: PLR0917
    context, monkeypatch, argv, module, file, entrypoint
):
    monkeypatch.setattr(sys, "argv", argv)
    trial_class = trial_of(module, context / file, monkeypatch)
    assert reached(trial_class, context) == Reach(entrypoint)


def test_what_is_outside_the_context_is_refused_with_the_hint(context, monkeypatch, tmp_path):
    (tmp_path / "outside.py").write_text("")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "outside.py")])
    trial_class = trial_of("outside", tmp_path / "outside.py", monkeypatch)
    with pytest.raises(ConfigError, match=r"outside\.py is not in the context directory") as caught:
        reached(trial_class, context)
    assert "context_dir" in caught.value.hint


def test_a_class_made_in_a_function_cannot_be_imported_again(context, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    trial_class = trial_of("model_def", context / "model_def.py", monkeypatch, "f.<locals>.Mine")
    with pytest.raises(ConfigError):
        reached(trial_class, context)


def test_the_cells_of_a_notebook_go_along_as_a_script(context, monkeypatch):
    main = ModuleType("__main__")
    vars(main).update(get_ipython=None, In=["", "%matplotlib inline\nx = 1", "create(Mine)"])
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py", "-f", "kernel.json"])
    with reach(type("T", (), {}), context, None) as way:
        (script,) = way.includes
        assert script.read_text() == "pass  # %matplotlib inline\nx = 1\n\ncreate(Mine)\n"
        assert way.entrypoint == (*AGAIN, script.name)
    assert not script.exists()


def test_a_command_may_name_a_notebook(context, monkeypatch):
    cells = [{"cell_type": "code", "source": ["!ls\n", "x = 1"]}]
    (context / "nb.ipynb").write_text(json.dumps({"cells": cells}))
    with reach(type("T", (), {}), context, ["nb.ipynb", "--fast"]) as way:
        (script,) = way.includes
        assert script.read_text() == "pass  # !ls\nx = 1\n"
        assert way.entrypoint == (*AGAIN, script.name, "--fast")


def test_a_trial_instance_has_the_context_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.unit.harness.pytorch.driving import TinyTrial

    config = {"resources": {"slots_per_trial": 0}}
    made = create_trial_instance(TinyTrial, tmp_path / "new", config, {"lr": 0.1})
    assert isinstance(made, TinyTrial)
    assert made.context.get_hparams() == {"lr": 0.1}
