from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest

from detbuild.errors import ConfigError
from detbuild.sdk.create import Reach, notebook_cells, reach, script_of
from determined._contract.errors import InvalidTrialError


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
