"""Each line of `create` is shown once, whatever the program does with `logging`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
import logging
from determined.experimental._say import LOG, logged

def set_up():
    logging.basicConfig(level=logging.INFO)

{before}
with logged():
    {within}
    LOG.info("trial 1 ended")
logging.getLogger("determined.other").warning("after")
"""


@pytest.mark.parametrize(("before", "within"), [("", ""), ("set_up()", ""), ("", "set_up()")])
def test_a_line_is_shown_once(before: str, within: str) -> None:
    harness = str(Path(__file__).parents[4] / "harness")
    done = subprocess.run(
        [sys.executable, "-c", BODY.format(before=before, within=within or "pass")],
        env={"PYTHONPATH": harness},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("trial 1 ended") == 1
    assert done.stderr.count("after") == 1
