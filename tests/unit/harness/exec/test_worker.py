"""A trial in this process: its records, its last word, and the run as the trial sees it."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import determined as det
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import (
    Checkpoint,
    Ended,
    ExitReason,
    Progress,
    Record,
    Stage,
    StageEntered,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import ExitCode, RunInfo
from determined._run.outcome import Outcome
from determined._run.run import ChiefRun, Run
from determined._trial.context import Trial
from determined._version import __version__
from determined.exec.worker import run_trial

Body = Callable[[ChiefRun], ExitReason]


class Toy(Trial):
    _runner = f"{__name__}:train"
    body: Body


def train(trial_class: type[Toy], run: ChiefRun) -> ExitReason:
    protocol: Run = run  # ChiefRun is a Run: mypy would say so
    assert protocol is run
    return trial_class.body(run)


def go(info: RunInfo, body: Body) -> tuple[Outcome, list[Record]]:
    """Run a trial whose training is `body`; its outcome, and its records after the first stage."""
    outcome = run_trial(info, type("Toy", (Toy,), {"body": staticmethod(body)}))
    lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
    first, *rest = (decode(line).record for line in lines)
    assert first == StageEntered(Stage.IMPORT)
    return outcome, rest


def raises(error: BaseException) -> Body:
    def body(run: ChiefRun) -> ExitReason:
        run.enter(Stage.TRAIN)
        raise error

    return body


def stored(root: str, steps: int) -> str:
    with contract_checkpoints.store(Path(root), {"steps_completed": steps}) as (path, uuid):
        (path / "state").write_text("state")
    return uuid


def test_what_a_run_reports_is_recorded_in_order(make_run: Callable[..., RunInfo]) -> None:
    class Tensor(float):
        def tolist(self) -> float:
            return float(self)

    def body(run: ChiefRun) -> ExitReason:
        run.enter(Stage.TRAIN)
        run.report_training(5, {"loss": Tensor(0.25), "by_class": {"cat": [1, Tensor(2.0)]}})
        run.report_validation(5, {"accuracy": 0.5})
        run.report_progress(0.5)
        with run.store_checkpoint(5, {"framework": "toy"}) as (path, _):
            (path / "state").write_bytes(b"1234")
        return ExitReason.STOPPED

    outcome, records = go(make_run(), body)
    (checkpoint,) = (record for record in records if isinstance(record, Checkpoint))
    metadata = {"determined_version": __version__, "framework": "toy", "steps_completed": 5}
    assert outcome == Outcome(Ended(ExitReason.STOPPED), ExitCode.DONE)
    assert records == [
        StageEntered(Stage.TRAIN),
        Training(5, {"loss": 0.25, "by_class": {"cat": [1, 2.0]}}),
        Validation(5, {"accuracy": 0.5}),
        Progress(0.5),
        Checkpoint(checkpoint.uuid, 5, {"metadata.json": 81, "state": 4}, metadata),
        Ended(ExitReason.STOPPED),
    ]


def test_when_all_checkpoints_are_damaged_the_run_ends_and_does_not_begin_anew(
    make_run: Callable[..., RunInfo],
) -> None:
    root = make_run().checkpoint_dir
    newest, older = stored(root, 6), stored(root, 3)
    for uuid in (newest, older):
        (Path(root) / uuid / "state").write_text("sta")
    trained = []

    def body(run: ChiefRun) -> ExitReason:
        trained.append(run.open_checkpoint())
        return ExitReason.COMPLETED

    outcome, _ = go(make_run(checkpoints=(newest, older)), body)
    assert (trained, outcome.ended.reason, outcome.exit_code) == (
        [],
        ExitReason.NOT_RETRYABLE,
        ExitCode.NOT_RETRYABLE,
    )
    assert outcome.ended.message.splitlines()[1:] == [
        f"  {uuid}: state has 3 bytes instead of 5" for uuid in (newest, older)
    ]


@pytest.mark.parametrize(
    ("error", "reason", "code", "message"),
    [
        (det.InvalidHP("lr too big"), ExitReason.INVALID_HP, ExitCode.DONE, "InvalidHP: lr too big"),
        (KeyError("big"), ExitReason.ERROR, ExitCode.USER_ERROR, "KeyError: 'big'"),
        (InvalidTrialError("no model"), ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE, "no model"),
        (CheckpointError("all damaged"), ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE, "all damaged"),
        (SystemExit(3), ExitReason.ERROR, ExitCode.USER_ERROR, "the trial called sys.exit(3)"),
        (KeyboardInterrupt(), ExitReason.ERROR, ExitCode.INTERRUPTED, "interrupted by SIGINT"),
        (OSError(errno.ENOSPC, "full"), ExitReason.ERROR, ExitCode.USER_ERROR, "OSError: [Errno 28] full"),
    ],
)
def test_whatever_a_trial_raises_becomes_its_last_word(
    make_run: Callable[..., RunInfo], error: BaseException, reason: ExitReason, code: ExitCode, message: str
) -> None:
    outcome, records = go(make_run(), raises(error))
    assert (outcome.ended.reason, outcome.exit_code, outcome.ended.message) == (reason, code, message)
    assert outcome.ended.stage == Stage.TRAIN
    assert outcome.error is error
    assert records[-1] == outcome.ended


def test_a_repeated_traceback_is_shown_once_and_counted(
    make_run: Callable[..., RunInfo], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, _ = go(make_run(), raises(KeyError("big")))
    assert "Traceback" in capsys.readouterr().err
    Path(make_run().run_dir, "events.jsonl").unlink()
    again = make_run(run=3, last_failure=outcome.ended.failure, failed_alike=2)
    go(again, raises(KeyError("big")))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith(
        "same error as in run 2, which has the traceback (3 runs in a row)\nerror in stage train:"
    )


@pytest.mark.parametrize(
    ("error", "reason", "known"),
    [
        (ModuleNotFoundError("No module named 'einops'"), ExitReason.NOT_RETRYABLE, True),
        (SyntaxError("bad"), ExitReason.NOT_RETRYABLE, True),
        (KeyError("big"), ExitReason.ERROR, True),
        (ConnectionResetError("reset"), ExitReason.ERROR, False),
        (OSError(errno.EIO, "Input/output error"), ExitReason.ERROR, False),
    ],
)
def test_what_another_run_may_do_better_is_told_from_what_not(
    make_run: Callable[..., RunInfo], error: Exception, reason: ExitReason, known: bool
) -> None:
    outcome, _ = go(make_run(), raises(error))
    assert (outcome.ended.reason, bool(outcome.ended.failure)) == (reason, known)


def test_an_endless_message_is_cut(make_run: Callable[..., RunInfo]) -> None:
    outcome, _ = go(make_run(), raises(ValueError("x" * 1_000_000)))
    assert outcome.ended.message == f"ValueError: {'x' * 4000} [...]"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (MemoryError(), "the host's memory is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "the GPU's memory is full"),
        (RuntimeError("DataLoader worker is killed by signal: Bus error. out of shared memory"), "/dev/shm"),
    ],
)
def test_memory_that_ran_out_comes_with_a_hint(
    make_run: Callable[..., RunInfo], error: Exception, hint: str
) -> None:
    outcome, _ = go(make_run(), raises(error))
    assert hint in outcome.ended.hint


def test_a_disk_that_is_full_under_a_checkpoint_is_no_fault_of_the_trial(
    make_run: Callable[..., RunInfo],
) -> None:
    def body(run: ChiefRun) -> ExitReason:
        with run.store_checkpoint(1, {}):
            raise OSError(errno.ENOSPC, "No space left on device")

    outcome, records = go(make_run(), body)
    assert outcome.exit_code == ExitCode.INFRASTRUCTURE
    assert isinstance(records[-1], Ended)


def test_a_trial_of_no_framework_is_hopeless(make_run: Callable[..., RunInfo]) -> None:
    outcome = run_trial(make_run(), Trial)
    assert (outcome.ended.reason, outcome.ended.message) == (
        ExitReason.NOT_RETRYABLE,
        "Trial does not derive from the trial class of a framework",
    )


def test_sigterm_asks_the_trial_to_stop_and_the_handler_before_comes_back(
    make_run: Callable[..., RunInfo],
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def body(run: ChiefRun) -> ExitReason:
        assert not run.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.should_stop()
        return ExitReason.PREEMPTED

    outcome, _ = go(make_run(), body)
    assert outcome.ended == Ended(ExitReason.PREEMPTED)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_trial_may_run_in_a_thread(make_run: Callable[..., RunInfo]) -> None:
    ended = []
    info = make_run()
    thread = threading.Thread(target=lambda: ended.append(go(info, lambda _: ExitReason.COMPLETED)[0].ended))
    thread.start()
    thread.join()
    assert ended == [Ended(ExitReason.COMPLETED)]


def test_the_last_word_says_where_in_the_user_s_code_it_happened(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(entrypoint="failing_model:Toy")
    (Path(info.context_dir) / "failing_model.py").write_text(
        "from determined._trial.context import Trial\n"
        "class Toy(Trial):\n    _runner = 'failing_model:train'\n"
        "def train(trial_class, run):\n    batch(None)\n"
        "def batch(data):\n    int.from_bytes(data)\n"
    )
    outcome = run_trial(info)
    assert outcome.ended.message.endswith("(failing_model.py:7 in batch)")


FAILING = """
from torch.utils.data import DataLoader
from determined._contract.errors import InvalidTrialError
from determined._trial.context import Trial

class Files:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise FileNotFoundError(f"{index}.png")

class Toy(Trial):
    _runner = 'module_name:train'

def train(trial_class, run):
    BODY
"""


def told(make_run: Callable[..., RunInfo], name: str, body: str) -> Outcome:
    """How a trial of that module ends whose training is `body`."""
    info = make_run(entrypoint=f"{name}:Toy")
    text = FAILING.replace("module_name", name).replace("BODY", body)
    (Path(info.context_dir) / f"{name}.py").write_text(text)
    return run_trial(info)


def test_an_error_of_a_loader_s_process_is_told_in_one_line_with_its_place(
    make_run: Callable[..., RunInfo], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    loader = "next(iter(DataLoader(Files(), num_workers=1, multiprocessing_context='fork')))"
    outcome = told(make_run, "failing_loader", loader)
    message = "FileNotFoundError: 0.png (failing_loader.py:11 in __getitem__, in DataLoader worker process 0)"
    assert outcome.ended.message == message
    shown = capsys.readouterr().err
    assert shown.endswith(f"error in stage import: {message}\n")
    assert "determined/exec/worker.py" not in shown


def test_what_the_harness_refuses_comes_with_the_user_s_line_and_no_traceback(
    make_run: Callable[..., RunInfo], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    outcome = told(make_run, "refused", "raise InvalidTrialError('not so', hint='but so') from OSError('x')")
    assert outcome.ended.message == "not so (refused.py:17 in train)"
    assert capsys.readouterr().err == (
        "error in stage import: not so (refused.py:17 in train)\n  hint: but so\n"
    )


def test_a_traceback_begins_outside_the_harness(
    make_run: Callable[..., RunInfo], capsys: pytest.CaptureFixture[str]
) -> None:
    go(make_run(), lambda _: json.loads("{"))  # type: ignore[arg-type,return-value]
    first = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("  File"))
    assert "harness/determined" not in first


def test_a_run_without_a_place_for_its_records_is_a_matter_of_the_host(
    make_run: Callable[..., RunInfo],
) -> None:
    outcome = run_trial(make_run(run_dir="/no/such/folder"), Toy)
    assert outcome.exit_code == ExitCode.INFRASTRUCTURE
