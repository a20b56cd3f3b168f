"""The Core API in this process, in a run and by hand."""

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
from determined._contract import checkpoints
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import (
    Checkpoint,
    Ended,
    ExitReason,
    Measured,
    Progress,
    Record,
    Restored,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import RUN_DIR_VARIABLE, Length, RunInfo
from determined._version import __version__


@pytest.fixture
def in_run(make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunInfo]:
    """Make a run and be its script."""

    def make(**changes: object) -> RunInfo:
        info = make_run(entrypoint="python3 train.py", **changes)
        monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
        return info

    return make


@pytest.fixture
def by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return tmp_path


def records(info: RunInfo) -> list[Record]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def test_what_a_script_reports_is_recorded_in_order(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        context.train.report_training_metrics(steps_completed=2, metrics={"loss": 0.5})
        context.train.report_validation_metrics(2, {"accuracy": 0.25})
        context.train.report_metrics("training", 3, {"loss": 0.4})
        context.train.report_metrics("inference", 3, {"latency": 7})
        context.train.report_progress(0.5)
        context.train.set_status("almost there")
        context.train.upload_tensorboard_files()
    assert records(info) == [
        Training(2, {"loss": 0.5}),
        Validation(2, {"accuracy": 0.25}),
        Training(3, {"loss": 0.4}),
        Measured("inference", 3, {"latency": 7}),
        Progress(0.5),
    ]


def test_a_checkpoint_is_stored_restored_downloaded_and_deleted(
    in_run: Callable[..., RunInfo], tmp_path: Path
) -> None:
    info = in_run()
    with core.init() as context:
        with context.checkpoint.store_path({"steps_completed": 4, "note": "x"}) as (path, uuid):
            (path / "sub").mkdir()
            (path / "sub" / "state").write_text("4")
        with context.checkpoint.restore_path(uuid) as restored:
            assert (restored / "sub" / "state").read_text() == "4"
        with context.checkpoint.restore_path(uuid, selector=lambda name: name == "metadata.json") as restored:
            assert [each.name for each in restored.iterdir()] == ["metadata.json"]
        context.checkpoint.download(uuid, tmp_path / "copy")
        metadata = context.checkpoint.get_metadata(uuid)
        again = context.checkpoint.upload(
            tmp_path / "copy", {"steps_completed": 5}, selector=lambda name: name.startswith("sub")
        )
        context.checkpoint.delete(uuid)
    found = sorted(each.relative_to(tmp_path / "copy").as_posix() for each in (tmp_path / "copy").rglob("*"))
    assert found == ["metadata.json", "sub", "sub/state"]
    assert metadata == {"determined_version": __version__, "steps_completed": 4, "note": "x"}
    assert [each.name for each in Path(info.checkpoint_dir).iterdir()] == [again]
    assert checkpoints.verify(Path(info.checkpoint_dir) / again) == []
    stored, first, _, second = records(info)
    assert isinstance(stored, Checkpoint)
    assert (stored.uuid, stored.steps_completed) == (uuid, 4)
    assert first == Restored(uuid, 4)
    assert isinstance(second, Checkpoint)
    assert set(second.resources) == {"metadata.json", "sub/state"}


@pytest.mark.parametrize("metadata", [None, {}, {"steps_completed": "4"}, {"steps_completed": True}])
def test_a_checkpoint_needs_its_number_of_batches(in_run: Callable[..., RunInfo], metadata: Any) -> None:
    info = in_run()
    with (
        pytest.raises(ValueError, match="require steps_completed"),
        core.init() as context,
        context.checkpoint.store_path(metadata),
    ):
        pass
    assert list(Path(info.checkpoint_dir).iterdir()) == []


def test_a_checkpoint_that_is_missing_or_damaged_is_not_restored(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        with context.checkpoint.store_path({"steps_completed": 1}) as (path, uuid):
            (path / "state").write_text("1234")
        (Path(info.checkpoint_dir) / uuid / "state").write_text("1239")
        with pytest.raises(CheckpointError, match="is damaged: state differs from"):
            context.checkpoint.download(uuid, "copy")
        with pytest.raises(CheckpointError, match="no checkpoint nowhere"):
            context.checkpoint.get_metadata("nowhere")
        with pytest.raises(ValueError, match="is not a valid checkpoint ID"):
            context.checkpoint.delete("../checkpoints")


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


def test_there_is_one_searcher_operation_of_the_whole_length(in_run: Callable[..., RunInfo]) -> None:
    info = in_run(max_length=Length("epochs", 4))
    with core.init() as context:
        assert context.searcher.get_configured_units() is core.Unit.EPOCHS
        for op in context.searcher.operations():
            op.report_progress(1)
            op.report_completed(0.5)
    assert op.length == 4
    assert records(info) == [Progress(0.25), Progress(1.0)]


def test_an_operation_has_to_be_completed_once(in_run: Callable[..., RunInfo]) -> None:
    in_run(max_length=Length("batches", 4))
    with core.init() as context:
        operations = context.searcher.operations()
        op = next(operations)
        with pytest.raises(RuntimeError, match=r"call op.report_completed"):
            next(operations)
        op.report_completed(1.0)
        with pytest.raises(RuntimeError, match="called twice"):
            op.report_completed(1.0)


def test_without_a_length_there_is_no_operation(in_run: Callable[..., RunInfo]) -> None:
    in_run()
    with pytest.raises(InvalidTrialError, match="does not say how long"), core.init() as context:
        next(context.searcher.operations())


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


def test_a_script_says_itself_why_it_ends_early(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        context.train.report_early_exit(core.EarlyExitReason.USER_REQUESTED_STOP)
    assert records(info) == [Ended(ExitReason.STOPPED)]


def test_the_best_validation_is_known_from_runs_before_and_from_this_one(
    in_run: Callable[..., RunInfo],
) -> None:
    in_run(best_validation=0.5, config={"searcher": {"metric": "loss", "smaller_is_better": True}})
    with core.init() as context:
        assert context.train.get_experiment_best_validation() == 0.5
        for loss in (0.7, 0.25, 0.3):
            context.train.report_validation_metrics(1, {"loss": loss})
        assert context.train.get_experiment_best_validation() == 0.25


def test_facts_and_tensorboard_files_are_in_the_run_folder(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        assert context.train.get_metadata() is None
        context.train.set_metadata({"data": "v2"})
        assert context.train.get_metadata() == {"data": "v2"}
        assert context.train.get_tensorboard_path() == Path(info.run_dir) / "tensorboard"


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
