from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_for_both_commands(shell, name):
    out = shell("detbuild", "completion", name).out
    assert "_DETBUILD_COMPLETE" in out
    assert "_DET_COMPLETE" in out


def test_other_shells_are_refused(shell):
    assert shell("detbuild", "completion", "tcsh").code == 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("detbuild desc", ["describe"]),
        ("detbuild describe ", ["3", "2", "1"]),
        ("detbuild logs --ta", ["--tail"]),
        ("detbuild checkpoint ", ["list", "describe", "download", "delete", "gc", "import"]),
    ],
)
def test_commands_options_and_ids_are_completed(shell, words, offered):
    for _ in range(3):
        shell.experiment()
    environ = {
        **os.environ,
        "DETBUILD_HOME": str(shell.home),
        "_DETBUILD_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "from detbuild.cli.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == offered, done.stderr
