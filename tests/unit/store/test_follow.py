from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.events import (
    Event,
    ExperimentContinued,
    ExperimentEnded,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
)
from detbuild.store.experiment_dir import ExperimentFolder, Header, RunFolder
from detbuild.store.follow import ExperimentTail
from detbuild.store.home import Home
from detbuild.store.journal import (
    ExperimentFinished,
    RequestApplied,
    RunCreated,
    RunFinished,
    Searched,
    TrialFinished,
    Waiting,
)
from detbuild.store.logs import OutputFile, tail
from detbuild.store.state import load
from determined._contract.records import Training
from determined._run.events import EventFile

if TYPE_CHECKING:
    from pathlib import Path


def folder_in(path: Path) -> ExperimentFolder:
    folder = Home.open(path).new_experiment()
    folder.write(Header(id=1, name="n", context_name="c", created=0.0), {})
    folder.run(1, 0).path.mkdir()
    return folder


def new(tail_: ExperimentTail) -> list[Event]:
    events: list[Event] = []
    tail_.emit(events.append)
    return events


def test_the_search_and_the_ends_of_its_trials_are_told(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.record(Searched(event={"kind": "began"}, progress=0.25, share=0.5))
    folder.record(TrialFinished(trial_id=1, state="CANCELED"))
    assert new(ExperimentTail(folder)) == [SearchAdvanced(0.25, 0.5), TrialEnded(1, "CANCELED")]


def test_what_was_before_a_request_is_passed_over(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    follower = ExperimentTail(folder, since=2)
    folder.record(RequestApplied(number=1, verb="pause"))
    folder.record(ExperimentFinished(state="ERROR", why="boom"))
    assert (new(follower), follower.over) == ([], False)
    folder.record(RequestApplied(number=2, verb="continue"))
    assert new(follower) == [ExperimentContinued(1, str(folder.path))]
    folder.record(ExperimentFinished(state="COMPLETED"))
    assert (new(follower), follower.over) == ([ExperimentEnded(1, "COMPLETED", "")], True)


def test_everything_is_told_once_and_before_the_end(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    run = folder.run(1, 0)
    follower = ExperimentTail(folder)
    assert new(follower) == []
    folder.record(Waiting(trial_id=1, why="no GPU is free"))
    folder.record(Waiting(trial_id=1, why=""))
    folder.record(RunCreated(trial_id=1, run=0, container="abc", gpu_ids=("0",)))
    assert new(follower) == [TrialDelayed(1, "no GPU is free"), RunStarted(1, 0, "abc", ("0",))]
    records = EventFile(run.events, "1-0")
    records.append(Training(1, {"loss": 1.0}))
    run.output("stdout").write_bytes(b"one\ntw")
    assert new(follower) == [RunOutput(1, 0, "stdout", "one"), RunRecord(1, 0, Training(1, {"loss": 1.0}))]
    run.output("stdout").write_bytes(b"one\ntwo\r\nthree")
    run.output("stderr").write_bytes(b"\xff odd\n")
    records.append(Training(2, {"loss": 0.5}))
    records.close()
    folder.record(
        RunFinished(
            trial_id=1, run=0, outcome="user_error", exit_code=1, message="boom", hint="repair it", retry=True
        )
    )
    folder.record(ExperimentFinished(state="ERROR", why="boom"))
    assert new(follower) == [
        RunOutput(1, 0, "stdout", "two"),
        RunOutput(1, 0, "stdout", "three"),
        RunOutput(1, 0, "stderr", "\ufffd odd"),
        RunRecord(1, 0, Training(2, {"loss": 0.5})),
        RunEnded(1, 0, 1, "boom; repair it", True),
        ExperimentEnded(1, "ERROR", "boom"),
    ]
    assert (new(follower), follower.over) == ([], True)


def test_a_line_without_end_comes_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "stdout.log").write_bytes(b"x" * (3 << 20))
    pieces = list(OutputFile(RunFolder(tmp_path), "stdout").rest())
    assert "".join(pieces) == "x" * (3 << 20)
    assert max(map(len, pieces)) <= 2 << 20


def test_the_last_lines_are_those_of_stderr_or_else_of_stdout(tmp_path: Path) -> None:
    run = folder_in(tmp_path).run(1, 0)
    assert tail(run) == ()
    run.output("stdout").write_text("".join(f"line {number}\n" for number in range(100)))
    assert tail(run, 2) == ("line 98", "line 99")
    run.output("stderr").write_text("Traceback\n" + "y" * 1000)
    assert tail(run) == ("Traceback", "y" * 500)


def test_what_user_code_put_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    run = folder.run(1, 0)
    os.mkfifo(run.events)
    run.output("stdout").mkdir()
    run.output("stderr").symlink_to("stderr.log")
    follower = ExperimentTail(folder)
    folder.record(RunCreated(trial_id=1, run=0, container="abc"))
    stdout = "[detbuild: stdout.log is not a regular file: a directory; skipped]"
    stderr = "[detbuild: stderr.log is a symbolic link; skipped]"
    assert new(follower) == [
        RunStarted(1, 0, "abc", ()),
        RunOutput(1, 0, "stdout", stdout),
        RunOutput(1, 0, "stderr", stderr),
    ]
    assert new(follower) == []
    assert (tail(run), load(folder).trials[1].progress.steps_completed) == ((stderr,), 0)
