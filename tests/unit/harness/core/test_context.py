from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import determined as det
from determined import core
from determined._contract.records import (
    Ended,
    ExitReason,
    Record,
    decode,
)
from determined._contract.run_info import RunInfo


def records(info: RunInfo) -> list[Record]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def test_sigterm_asks_the_script_to_leave_and_it_ends_as_preempted(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        assert not context.preempt.should_preempt()
        os.kill(os.getpid(), signal.SIGTERM)
        assert context.preempt.should_preempt()
    assert records(info) == [Ended(ExitReason.PREEMPTED)]


def test_a_script_may_leave_by_sys_exit(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()

    def script() -> None:
        with core.init() as context:
            os.kill(os.getpid(), signal.SIGTERM)
            if context.preempt.should_preempt():
                sys.exit()

    with pytest.raises(SystemExit):
        script()
    assert records(info) == [Ended(ExitReason.PREEMPTED)]


def test_sys_exit_with_a_code_is_a_failure(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with pytest.raises(SystemExit), core.init():
        sys.exit(3)
    (ended,) = records(info)
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message.partition(" (")[0]) == (
        ExitReason.ERROR,
        "the trial called sys.exit(3)",
    )


def test_without_acknowledgement_it_has_not_been_preempted(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        os.kill(os.getpid(), signal.SIGTERM)
        assert context.preempt.should_preempt(auto_ack=False)
    assert records(info) == []


def test_invalid_hyperparameters_end_the_run_and_not_the_script(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init():
        raise det.InvalidHP("too deep")
    (ended,) = records(info)
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message.startswith("InvalidHP: too deep")) == (ExitReason.INVALID_HP, True)


def test_what_a_script_raises_is_recorded_and_raised(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with pytest.raises(KeyError), core.init():
        raise KeyError("odd")
    (ended,) = records(info)
    assert isinstance(ended, Ended)
    assert ended.reason is ExitReason.ERROR


@pytest.mark.parametrize(
    "call", [lambda t: t.report_progress(2), lambda t: t.report_training_metrics("1", {})]
)
def test_what_makes_no_sense_is_refused(in_run: Callable[..., RunInfo], call: Callable[[Any], None]) -> None:
    in_run()
    with pytest.raises((ValueError, TypeError), match="expected"), core.init() as context:
        call(context.train)


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({"DETBUILD_HOME": "mine"}, "mine"),
        ({"DETBUILD_HOME": "", "XDG_DATA_HOME": "data"}, "data/detbuild"),
        ({"DETBUILD_HOME": "", "XDG_DATA_HOME": ""}, ".local/share/detbuild"),
    ],
)
def test_by_hand_a_script_keeps_its_metrics_in_the_home_that_is_named(
    by_hand: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], home: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(by_hand / value) if value else "")
    with core.init() as context:
        context.train.report_training_metrics(1, {"loss": 0.5})
    assert len(list((by_hand / home / "scripts").glob("*/events.jsonl"))) == 1


def test_by_hand_a_script_logs_what_it_reports(by_hand: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("determined").setLevel(logging.INFO)
    assert det.get_cluster_info() is None
    with core.init(checkpoint_storage=str(by_hand / "mine")) as context:
        for op in context.searcher.operations():
            context.train.report_training_metrics(op.length, {"loss": 0.5})
            op.report_completed(0.5)
        with context.checkpoint.store_path({"steps_completed": 1}) as (path, uuid):
            (path / "state").touch()
        context.profiler.on()
        context.experimental.alert(title="look")
        assert not context.preempt.should_preempt()
    assert "training, 1 batches: loss 0.5" in caplog.messages
    assert [each.name for each in (by_hand / "mine").iterdir()] == [uuid]
