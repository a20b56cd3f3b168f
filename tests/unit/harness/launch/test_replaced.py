from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from determined._contract.records import Ended, ExitReason, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, ExitCode
from determined.launch._replaced import fail_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined._contract.run_info import RunInfo


def test_outside_a_run_it_only_tells(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    code = fail_unsupported("this is gone", hint="use that")
    said = capfd.readouterr().err
    assert (code, "this is gone" in said, "use that" in said) == (ExitCode.NOT_RETRYABLE, True, True)


def test_in_a_run_it_is_the_last_record(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = make_run()
    monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
    fail_unsupported("this is gone", hint="use that")
    (line,) = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
    assert decode(line).record == Ended(ExitReason.NOT_RETRYABLE, message="this is gone", hint="use that")
