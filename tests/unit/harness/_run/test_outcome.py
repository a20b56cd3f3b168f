from __future__ import annotations

from pathlib import Path

import pytest

from determined._contract.errors import InvalidHP, InvalidTrialError, StorageError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import RUN_FILE, ExitCode, RunInfo
from determined._run.outcome import (
    defined_at,
    failed,
    failure_of,
    finished,
    place_of,
    python_files,
    user_trace,
)


def raised(context: Path, code: str, name: str = "model_def.py") -> BaseException:
    """What the code raises as a file of the context, without the frame of the test."""
    file = context / name
    file.write_text(code)
    with pytest.raises(BaseException) as caught:
        exec(compile(code, str(file), "exec"), {"__name__": "model_def"})
    error = caught.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (InvalidHP("too large"), ExitReason.INVALID_HP, ExitCode.DONE),
        (InvalidTrialError("no method"), ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE),
        (ModuleNotFoundError("torch"), ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE),
        (StorageError("full"), ExitReason.ERROR, ExitCode.INFRASTRUCTURE),
        (KeyboardInterrupt(), ExitReason.ERROR, ExitCode.INTERRUPTED),
        (ValueError("odd"), ExitReason.ERROR, ExitCode.USER_ERROR),
    ],
)
def test_an_exception_decides_reason_and_exit_code(
    tmp_path: Path, error: BaseException, reason: ExitReason, code: ExitCode
) -> None:
    outcome = failed(error, Stage.TRAIN, tmp_path)
    assert (outcome.ended.reason, outcome.exit_code, outcome.ended.stage) == (reason, code, Stage.TRAIN)
    assert outcome.error is error


def test_a_run_that_finished_has_no_error() -> None:
    outcome = finished(ExitReason.STOPPED)
    assert (outcome.ended.reason, outcome.exit_code, outcome.error) == (ExitReason.STOPPED, 0, None)


def test_the_message_has_the_innermost_line_of_the_user_s_code(tmp_path: Path) -> None:
    error = raised(tmp_path, "import json\ndef load():\n    json.loads('{')\nload()\n")
    assert place_of(error, tmp_path) == "model_def.py:3 in load"
    message = failed(error, None, tmp_path).ended.message
    assert message.startswith("JSONDecodeError: ")
    assert message.endswith(" (model_def.py:3 in load)")


def test_the_same_error_at_the_same_line_is_the_same_failure(tmp_path: Path) -> None:
    first, second = (raised(tmp_path, f"{'x = 1;' * n}raise ValueError({n})\n") for n in (1, 2))
    assert failure_of(first, Stage.BUILD, tmp_path) == failure_of(second, Stage.BUILD, tmp_path)
    assert failure_of(first, Stage.BUILD, tmp_path).startswith("build ValueError model_def.py:1")
    assert failure_of(raised(tmp_path, "\nraise ValueError\n"), Stage.BUILD, tmp_path) != failure_of(
        first, Stage.BUILD, tmp_path
    )
    assert failure_of(TimeoutError(), Stage.BUILD, tmp_path) == ""


def test_the_trace_starts_at_the_user_s_code(tmp_path: Path) -> None:
    code = "def f():\n    raise ValueError\nf()\n"
    error = raised(tmp_path, code)
    trace = user_trace(error, tmp_path)
    assert trace is not None
    assert (Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno) == ("model_def.py", 3)


def test_a_trace_without_user_code_starts_beyond_all_rooms_of_the_harness(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text("{")
    with pytest.raises(ValueError, match="Expecting") as caught:
        RunInfo.load(tmp_path)
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # the first frame is the harness's
    trace = user_trace(error, tmp_path)
    assert trace is not None
    assert Path(trace.tb_frame.f_code.co_filename).parent.name == "json"


def test_the_place_of_a_definition_is_its_file_and_line() -> None:
    assert defined_at(raised).endswith(f"test_outcome.py:{raised.__code__.co_firstlineno}")
    assert defined_at(len) == "len"


def test_files_of_the_context_leave_out_hidden_folders_and_environments(tmp_path: Path) -> None:
    for name in ("b.py", "a/x.py", ".git/x.py", "venv/lib/site-packages/x.py", "a/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(python_files(tmp_path)) == [Path("b.py"), Path("a/x.py")]
