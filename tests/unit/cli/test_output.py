from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from detbuild.cli.output import (
    HEARTBEAT,
    LARGE_CONTEXT,
    LAST_LINES,
    LinesView,
    lines_of,
    metrics_line,
    no_output,
    only_id,
    step_name,
    view,
)
from detbuild.events import (
    BuildOutput,
    BuildStep,
    ContextPacked,
    ContextSent,
    ExperimentCreated,
    ExperimentEnded,
    ImagePulling,
    ImageReady,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    TrialDelayed,
    TrialEnded,
    Warned,
    Working,
)
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    ExitReason,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Started,
    Training,
    Validation,
)

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
    plain = LinesView()
    plain.emit(ImageReady("sha256:0123456789abcdef", "detbuild:1", built=False, seconds=0.0))
    plain.emit(ExperimentCreated(1, "/x"))
    plain.emit(RunOutput(1, 0, "stdout", "to stdout"))
    plain.emit(RunOutput(1, 0, "stderr", "to stderr"))
    assert tuple(capfd.readouterr()) == (
        "Created experiment 1\n[trial 1] to stdout\n",
        "image 0123456789ab unchanged: nothing to build\n[trial 1] to stderr\n",
    )


def test_a_failing_step_shows_its_last_lines_of_output(capfd):
    plain = LinesView(Clock())
    plain.emit(BuildStep("RUN x", cached=False, seconds=None))
    for number in range(LAST_LINES + 5):
        plain.emit(BuildOutput("RUN x", f"line {number}"))
    plain.emit(BuildStep("RUN x", cached=False, seconds=1.0, error="exit code 1"))
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "RUN x  ...",
        "RUN x  FAILED: exit code 1",
        *(f"    line {n}" for n in range(5, LAST_LINES + 5)),
    ]


def test_a_long_step_gives_a_sign_of_life(capfd):
    clock = Clock()
    plain = LinesView(clock)
    plain.emit(BuildStep("RUN x", cached=False, seconds=None))
    plain.emit(BuildOutput("RUN x", "soon"))
    clock.now = HEARTBEAT
    plain.emit(BuildOutput("RUN x", "still at it"))
    plain.emit(BuildOutput("RUN x", "and on"))
    assert capfd.readouterr().err == "RUN x  ...\nRUN x  ... still at it\n"


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


LINES = [
    (Warned("odd", "do this"), ("warning: odd", "  hint: do this")),
    (ContextPacked(3, 2048, (("a.py", 2000),)), ("context: 3 files, 2.0 kB",)),
    (
        ContextPacked(3, LARGE_CONTEXT, (("data.bin", LARGE_CONTEXT),)),
        (
            "context: 3 files, 100.0 MB; the largest are below; .detignore can exclude them",
            "     100.0 MB  data.bin",
        ),
    ),
    (ContextPacked(1, 1, (("a.py", 1),)), ("context: 1 file, 1 B",)),
    (Working("reading a\x1b"), ("... reading a\\x1b",)),
    (ImagePulling("python:3.11", "10 of 20 MB"), ("pulling python:3.11: 10 of 20 MB",)),
    (BuildStep("RUN pip", cached=False, seconds=None), ("RUN pip  ...",)),
    (BuildStep("RUN pip", cached=True, seconds=0.0), ("RUN pip  cached",)),
    (BuildStep("RUN pip", cached=False, seconds=1.25), ("RUN pip  1.2 s",)),
    (BuildStep("RUN pip", cached=False, seconds=1.0, error="exit 1"), ("RUN pip  FAILED: exit 1",)),
    (BuildStep("[internal] load .dockerignore", cached=False, seconds=0.1), ()),
    (
        BuildStep(
            "RUN --mount=type=cache,id=x PIP_A=1   pip  install " + "x" * 100, cached=True, seconds=0.0
        ),
        ("RUN pip install " + "x" * 84 + "...  cached",),
    ),
    (BuildOutput("RUN pip", "Collecting x"), ("    Collecting x",)),
    (ContextSent(1, 500), ("sent 1 file (500 B) to the engine",)),
    (
        ImageReady("sha256:0123456789abcdef", "detbuild:1", built=True, seconds=2.0),
        ("image 0123456789ab built in 2.0 s",),
    ),
    (
        ImageReady("sha256:0123456789abcdef", "detbuild:1", built=False, seconds=0.0),
        ("image 0123456789ab unchanged: nothing to build",),
    ),
    (ExperimentCreated(4, "/home/4"), ("Created experiment 4",)),
    (TrialDelayed(1, "no GPU is free"), ("trial 1 queued: no GPU is free",)),
    (RunStarted(1, 0, "c0ffee", ()), ("trial 1 started in container c0ffee",)),
    (RunStarted(1, 2, "", ("0", "1")), ("trial 1 started (run 2) in this host's Python on GPU 0, 1",)),
    (RunOutput(1, 0, "stdout", "hello \x1b[2J"), ("[trial 1] hello \\x1b[2J",)),
    (
        RunEnded(1, 0, 1, "user error\nlast line", retry=True),
        ("trial 1 failed: user error; retrying", "    last line"),
    ),
    (RunEnded(1, 0, 0, "", retry=False), ()),
    (RunEnded(1, 0, 0, "", retry=True), ("trial 1 stopped after a checkpoint and will continue from it",)),
    (TrialEnded(1, "COMPLETED"), ("trial 1 completed",)),
    (TrialEnded(1, "ERROR", "boom"), ()),
    (ExperimentEnded(4, "ERROR", "import failed"), ("experiment 4 error: import failed",)),
]
RECORDS = [
    (Training(100, {"loss": 0.123456789}), ("trial 1  batch 100  loss=0.123457",)),
    (Validation(100, {"a": {"b": 1}}), ("trial 1  batch 100  validation  a.b=1",)),
    (
        Checkpoint("uuid", 100, {"a": 1000, "b": 1000}),
        ("trial 1  batch 100  checkpoint uuid  2 files, 2.0 kB",),
    ),
    (Restored("uuid", 100), ("trial 1  batch 100  restored from checkpoint uuid",)),
    (CheckpointRejected("uuid", "damaged"), ("trial 1  checkpoint uuid not used: damaged",)),
    (Ended(ExitReason.COMPLETED), ()),
    (Ended(ExitReason.ERROR, Stage.TRAIN, "ValueError: x\nmore", "repair it"), ()),  # RunEnded says it
    (Started(1, "3.11", "0.1"), ()),
    (StageEntered(Stage.TRAIN), ()),
    (Progress(0.5), ()),
    (Exited(0), ()),
]


@pytest.mark.parametrize(("event", "lines"), LINES, ids=lambda value: type(value).__name__)
def test_an_event_is_shown(event, lines):
    assert lines_of(event) == lines


@pytest.mark.parametrize(("record", "lines"), RECORDS, ids=lambda value: type(value).__name__)
def test_a_record_is_shown(record, lines):
    assert lines_of(RunRecord(1, 0, record)) == lines


def test_a_line_of_metrics_is_bounded_and_counts_the_rest():
    metrics = {f"m{index}": {"x" * 300: [1.0] * 1000} for index in range(10_000)}
    line = metrics_line(metrics)
    assert len(line) < 1000
    assert line.endswith(f"... and {10_000 - line.count('='):,} more")
    assert metrics_line({"a": 1, "b": 2}, room=3) == "a=1 ... and 1 more"


def test_a_step_that_masks_its_output_is_shown_as_what_it_runs():
    name = (
        "[4/6] RUN --mount=type=secret,id=x . /run/secrets/environment && exec 4>&1 && "
        'exit "$({ { PIP_CONFIG_FILE=/x pip install -r requirements.txt 2>&1; echo $? >&3; } | sed; })"'
    )
    assert step_name(name) == "[4/6] RUN pip install -r requirements.txt"
