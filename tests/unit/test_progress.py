"""Each event as lines, and which of them are worth showing."""

from __future__ import annotations

import pytest

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
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
    Warned,
    Working,
)
from detbuild.progress import (
    HEARTBEAT,
    LARGE_CONTEXT,
    LAST_LINES,
    EventLines,
    SearchLines,
    SearchProgress,
    lines_of,
    metrics_line,
    state_line,
    step_name,
)
from detbuild.store.experiment_dir import Goal
from detbuild.store.state import State
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    ExitReason,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Started,
    Training,
    Validation,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


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


def test_results_and_progress_are_told_apart():
    written = []
    plain = EventLines(lambda line, is_progress: written.append((line, is_progress)))
    for event in (Warned("odd"), ExperimentCreated(1, "/x"), RunOutput(1, 0, "stderr", "to stderr")):
        plain.emit(event)
    assert written == [("warning: odd", True), ("Created experiment 1", False), ("[trial 1] to stderr", True)]


def test_a_failing_step_shows_its_last_lines_of_output():
    written = []
    plain = EventLines(lambda line, _: written.append(line), Clock())
    plain.emit(BuildStep("RUN x", cached=False, seconds=None))
    for number in range(LAST_LINES + 5):
        plain.emit(BuildOutput("RUN x", f"line {number}"))
    plain.emit(BuildStep("RUN x", cached=False, seconds=1.0, error="exit code 1"))
    assert written == [
        "RUN x  ...",
        "RUN x  FAILED: exit code 1",
        *(f"    line {n}" for n in range(5, LAST_LINES + 5)),
    ]


def test_a_long_step_gives_a_sign_of_life():
    clock = Clock()
    written = []
    plain = EventLines(lambda line, _: written.append(line), clock)
    plain.emit(BuildStep("RUN x", cached=False, seconds=None))
    plain.emit(BuildOutput("RUN x", "soon"))
    clock.now = HEARTBEAT
    plain.emit(BuildOutput("RUN x", "still at it"))
    plain.emit(BuildOutput("RUN x", "and on"))
    assert written == ["RUN x  ...", "RUN x  ... still at it"]


def test_a_paused_experiment_says_how_to_activate_it():
    assert state_line(State.PAUSED, "", 3) == "paused: detbuild activate 3"
    assert state_line(State.QUEUED, "all slots in use", 3) == "queued: all slots in use"


def searched(trials=3):
    search = SearchProgress(clock=Clock(), goal=Goal("loss"), planned=16)
    for number in range(1, trials + 1):
        search.note(RunStarted(number, 0, "c", (str(number),)))
        search.note(RunRecord(number, 0, Validation(10, {"loss": 1 / number})))
    return search


def test_the_summary_counts_and_names_the_best():
    search = searched()
    search.note(SearchAdvanced(0.25, 0.0))
    for number, state in ((1, "COMPLETED"), (2, "ERROR")):
        search.note(RunEnded(number, 0, number - 1, "", retry=False))
        search.note(TrialEnded(number, state))
    assert search.summary() == "2 of 16 ended, 1 running, 1 error; 25 %; best trial 3: loss=0.333333"


def test_between_two_segments_a_trial_waits_for_the_search_and_then_for_a_slot():
    search = searched(1)
    trial = search.trials[1]
    search.note(RunEnded(1, 0, 0, "", retry=False))
    assert (trial.state, trial.why) == ("WAITING", "paused by the search")
    search.note(TrialDelayed(1, "the only GPU is in use"))
    assert (trial.state, trial.why) == ("QUEUED", "the only GPU is in use")
    assert search.summary().startswith("0 of 16 ended, 1 queued;")
    search.note(RunStarted(1, 1, "c", ()))
    assert (trial.state, trial.why) == ("RUNNING", "")
    search.note(TrialEnded(1, "CANCELED"))
    assert (trial.state, search.summary().partition(";")[0]) == ("CANCELED", "1 of 16 ended, 1 canceled")


def test_the_number_of_trials_of_a_grid_comes_with_their_share():
    search = SearchProgress(clock=Clock())
    search.note(SearchAdvanced(0.0, 1 / 7))
    search.note(RunStarted(1, 0, "c", ()))
    search.note(RunRecord(1, 0, Progress(0.5)))
    assert search.summary() == "0 of 7 ended, 1 running; 7 %"


def test_the_time_left_comes_from_what_this_run_did():
    search = searched(1)
    search.clock.now = 60.0
    search.note(RunRecord(1, 0, Progress(0.25)))
    assert search.time_left(search.trials[1]) == "3 min"


def test_the_rate_comes_from_the_throughput_group():
    search = searched(1)
    search.note(RunRecord(1, 0, Measured("throughput", 10, {"batches_per_second": 5.0})))
    assert search.trials[1].rate == "5 batches/s"
    search.note(RunRecord(1, 0, Measured("throughput", 10, {"records_per_second": 320.0})))
    assert search.trials[1].rate == "320 records/s"


def test_what_waits_says_why_and_a_retried_trial_is_queued():
    search = searched(2)
    search.note(RunEnded(1, 0, 1, "boom", retry=True))
    search.note(TrialDelayed(1, "no GPU is free"))
    assert (search.trials[1].state, search.trials[1].why) == ("QUEUED", "no GPU is free")


def test_a_search_in_lines_is_summed_up_from_time_to_time():
    shown = []
    plain = SearchLines(lambda line, _: shown.append(line), clock := Clock())
    for number in (1, 2):
        plain.emit(RunStarted(number, 0, "", ()))
    assert not any("0 of 2 ended" in line for line in shown)
    clock.now = HEARTBEAT
    plain.emit(RunRecord(1, 0, Progress(0.5)))
    assert shown[-1] == "0 of 2 ended, 2 running; 0 %"
