from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from determined.keras._tf import numbers, prepare

GRAPH_MODE = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {context!r}]
import model_def
from determined._contract.errors import InvalidTrialError
from tests.unit.harness.keras.driving import Folder
folder = Folder(Path({folder!r}))
try:
    folder.drive(model_def.Mine, context_dir={context!r})
except InvalidTrialError as error:
    print(f"{{error}} | {{error.hint}}")
"""


@pytest.mark.parametrize(
    "lines",
    [
        ["tf.compat.v1.disable_eager_execution()", "class Mine(Tiny):", "    pass"],
        ["tf.compat.v1.disable_v2_behavior()", "class Mine(Tiny):", "    pass"],
        [
            "class Mine(Tiny):",
            "    def build_model(self):",
            "        tf.compat.v1.disable_eager_execution()",
            "        return super().build_model()",
        ],
    ],
)
def test_graph_mode_is_named_at_the_line_that_switches_it_on(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    head = ["import tensorflow as tf", "from tests.unit.harness.keras.driving import Tiny"]
    (tmp_path / "mine" / "model_def.py").write_text("\n".join([*head, *lines]))
    (tmp_path / "folder").mkdir()
    program = GRAPH_MODE.format(
        root=str(Path.cwd()), context=str(tmp_path / "mine"), folder=str(tmp_path / "folder")
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    call = next(line.strip() for line in lines if "disable" in line)
    number = 3 + next(number for number, line in enumerate(lines) if "disable" in line)
    assert f"model_def.py:{number}: graph mode is not supported" in done.stdout, done.stderr
    assert f"remove `{call}`" in done.stdout


def test_metrics_become_plain_numbers() -> None:
    found = numbers({"loss": tf.constant(1.5), "both": np.arange(2), "inner": {"a": np.float32(2)}})
    assert found == {"loss": 1.5, "both": [0, 1], "inner": {"a": 2.0}}


def test_equal_seeds_draw_equally() -> None:
    def drawn() -> list[float]:
        prepare(1 << 40)
        return [random.random(), float(np.random.rand()), float(tf.random.uniform([]))]  # noqa: NPY002

    assert drawn() == drawn()
