from __future__ import annotations

import json

import pytest

from determined._contract.errors import InvalidTrialError
from determined.experimental._notebook import notebook_cells, script_of


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
