from __future__ import annotations

import os
import pty
import subprocess
import sys

from detbuild.cli.output import no_output, only_id, view
from detbuild.cli.terminal import echo
from detbuild.events import (
    BuildStep,
    ExperimentCreated,
    ImageReady,
    RunOutput,
    Warned,
)
from detbuild.progress import SearchLines

FAILING = """
import sys
from detbuild.cli.output import view
from detbuild.events import BuildOutput, BuildStep, ImageReady

with view({"TERM": "xterm"}) as emit:
    emit(BuildStep("RUN pip install", cached=False, seconds=None))
    emit(BuildOutput("RUN pip install", "no such package"))
    emit(BuildStep("RUN pip install", cached=False, seconds=1.5, error="exit code 1"))
    emit(ImageReady("sha256:0123456789abcdef", "detbuild:1", built=True, seconds=2.0))
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_results_go_to_stdout_and_progress_to_stderr(capfd):
    plain = SearchLines(echo)
    plain.emit(ImageReady("sha256:0123456789abcdef", "detbuild:1", built=False, seconds=0.0))
    plain.emit(ExperimentCreated(1, "/x"))
    plain.emit(RunOutput(1, 0, "stdout", "to stdout"))
    plain.emit(RunOutput(1, 0, "stderr", "to stderr"))
    assert tuple(capfd.readouterr()) == (
        "Created experiment 1\n[trial 1] to stdout\n",
        "image 0123456789ab unchanged: nothing to build\n[trial 1] to stderr\n",
    )


def test_quiet_prints_the_id_and_warnings_only(capfd):
    for event in (Warned("odd"), ExperimentCreated(3, "/x"), RunOutput(1, 0, "stdout", "hello")):
        only_id(event)
    assert tuple(capfd.readouterr()) == ("3\n", "warning: odd\n")


def test_a_command_whose_result_is_the_answer_prints_warnings_only(capfd):
    for event in (Warned("odd"), ExperimentCreated(3, "/x")):
        no_output(event)
    assert tuple(capfd.readouterr()) == ("", "warning: odd\n")


def test_without_a_terminal_there_are_no_escapes(capfd):
    with view({"TERM": "xterm"}) as emit:
        emit(BuildStep("RUN x", cached=True, seconds=0.0))
    assert capfd.readouterr().err == "RUN x  cached\n"


def on_a_terminal(environ: dict[str, str]) -> str:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", FAILING], stdout=child, stderr=child, env={**os.environ, **environ}
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                block = os.read(parent, 4096)
            except OSError:  # the terminal is closed at the other end
                break
            if not block:
                break
            shown += block
    os.close(parent)
    assert process.returncode == 0
    return shown.decode()


def test_on_a_terminal_finished_steps_stay_and_failing_ones_show_their_output():
    shown = on_a_terminal({"TERM": "xterm-256color", "COLUMNS": "120"})
    assert "RUN pip install  FAILED: exit code 1" in shown
    assert "    no such package" in shown
    assert "image 0123456789ab built in 2.0 s" in shown
    assert "\x1b[31m" in shown


def test_no_color_is_honoured():
    assert "\x1b[31m" not in on_a_terminal({"TERM": "xterm-256color", "NO_COLOR": "1"})
