from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._contract.errors import HarnessError, InvalidHP
from determined._contract.records import Ended, ExitReason, Training, Validation, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo
from determined._run.script import RunOptions, script_run, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined._contract.records import Record


@pytest.fixture
def info(make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch) -> RunInfo:
    """The run of a script without a supervisor."""
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    return make_run()


def records(info: RunInfo) -> list[Record]:
    lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
    return [decode(line).record for line in lines]


def options(info: RunInfo) -> RunOptions:
    return RunOptions(begin=lambda: info)


def test_what_an_unsupervised_script_reports_is_recorded_and_logged(
    info: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "determined")
    with script_run(options(info)) as handle:
        handle.run.report_training(1, {"loss": 0.5})
        handle.run.report_validation(2, {"accuracy": 1.0})
    assert not handle.supervised
    kept = [one for one in records(info) if isinstance(one, Training | Validation)]
    assert kept == [
        Training(1, {"loss": 0.5}),
        Validation(2, {"accuracy": 1.0}),
    ]
    assert caplog.messages == ["training, 1 batches: loss 0.5", "validation, 2 batches: accuracy 1"]


def test_hyperparameters_that_cannot_work_end_the_run_and_not_the_script(info: RunInfo) -> None:
    with script_run(options(info)):
        raise InvalidHP("lr < 0")
    ended = records(info)[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message) == (ExitReason.INVALID_HP, "InvalidHP: lr < 0")


def test_an_error_ends_both_and_has_its_hint(info: RunInfo) -> None:
    with pytest.raises(HarnessError, match="no disk\n  hint: free some"), script_run(options(info)):
        raise HarnessError("no disk", hint="free some")
    ended = records(info)[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message, ended.hint) == (ExitReason.ERROR, "no disk", "free some")


@pytest.mark.parametrize(("code", "failed"), [(None, False), (0, False), (3, True)])
def test_an_exit_is_a_failure_if_its_code_is(info: RunInfo, code: int | None, failed: bool) -> None:
    with pytest.raises(SystemExit), script_run(options(info)):
        sys.exit(code)
    ended = [one for one in records(info) if isinstance(one, Ended)]
    assert [one.reason.failed for one in ended] == ([True] if failed else [])


def test_a_script_by_hand_keeps_its_files_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path / "home"))
    with script_run(RunOptions(hparams={"lr": 1}, seed=7)) as handle:
        pass
    found = handle.info
    assert (found.hparams, found.trial_seed, found.context_dir) == ({"lr": 1}, 7, str(Path.cwd()))
    folder = Path(found.run_dir)
    assert (folder.parent, folder.stat().st_mode & 0o77) == (tmp_path / "home" / "scripts", 0)
    assert found.checkpoint_dir == str(folder / "checkpoints")


VALUES = st.one_of(st.floats(), st.integers(), st.text(max_size=500), st.lists(st.integers(), max_size=50))


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=60))
def test_a_line_of_metrics_is_bounded(metrics: dict[str, object]) -> None:
    line = shown(metrics)
    assert len(line) <= 20 * 120 + 30
    assert (f"and {len(metrics) - 20} more" in line) == (len(metrics) > 20)
