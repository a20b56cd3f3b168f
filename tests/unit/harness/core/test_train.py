from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from determined import core
from determined._contract.records import (
    Ended,
    ExitReason,
    Measured,
    Progress,
    Record,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import RunInfo


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
