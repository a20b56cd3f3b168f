from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from determined import InvalidHP
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import (
    Checkpoint,
    Ended,
    ExitReason,
    Record,
    Restored,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import RUN_DIR_VARIABLE, Length
from determined._trial.schedule import Period, Units
from determined.pytorch import Batch, Epoch, PyTorchCallback, Trainer, init
from tests.unit.harness.pytorch.driving import Folder, TinyTrial


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a script that nobody supervises keeps its run."""
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return tmp_path


def records(run_dir: Path) -> list[Record]:
    return [decode(line).record for line in (run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)]


def own_runs(home: Path) -> list[Path]:
    return sorted(path.parent for path in home.glob(".local/share/detbuild/scripts/*/events.jsonl"))


def steps(found: list[Record], kind: type) -> list[int]:
    return [record.steps_completed for record in found if isinstance(record, kind)]  # type: ignore[attr-defined]


def test_a_script_run_by_hand_trains_with_the_same_loop(home: Path) -> None:
    with init(hparams={"width": 3}) as context:
        assert context.get_hparam("width") == 3
        Trainer(TinyTrial(context), context).fit(
            max_length=Epoch(2),
            validation_period=Batch(4),
            checkpoint_period=Batch([3]),
            reporting_period=Batch(5),
            checkpoint_policy="none",
            step_zero_validation=True,
        )
    (run_dir,) = own_runs(home)
    found = records(run_dir)
    assert steps(found, Training) == [3, 4, 5, 8, 10]
    assert steps(found, Validation) == [0, 4, 8, 10]
    assert steps(found, Checkpoint) == [3, 10]
    assert found[-1] == Ended(ExitReason.COMPLETED)


def test_best_means_all_where_there_is_no_searcher(home: Path) -> None:
    with init() as context:
        Trainer(TinyTrial(context), context).fit(max_length=Batch(4), validation_period=Batch(2))
    assert steps(records(own_runs(home)[0]), Checkpoint) == [2, 4]


def test_a_script_goes_on_from_a_checkpoint_and_not_beyond_its_length(home: Path) -> None:
    with init() as context:
        Trainer(TinyTrial(context), context).fit(max_length=Batch(3))
    (checkpoint,) = (path.parent for path in home.glob(".local/**/state_dict.pth"))
    trained: list[int] = []

    class Second(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            trained.append(batch_idx)
            return super().train_batch(batch, epoch_idx, batch_idx)

    with init() as context:
        Trainer(Second(context), context).fit(max_length=Batch(5), latest_checkpoint=str(checkpoint))
    assert trained == [3, 4]


@pytest.mark.parametrize("form", [str, Path, lambda path: path.name])
def test_a_checkpoint_is_named_by_its_directory_or_by_its_id(home: Path, form: Any) -> None:
    seen: list[str] = []

    class Watch(PyTorchCallback):
        def on_checkpoint_upload_end(self, uuid: str) -> None:
            seen.append(uuid)

    class First(TinyTrial):
        def build_callbacks(self) -> Any:
            return {"watch": Watch()}

    with init() as context:
        Trainer(First(context), context).fit(max_length=Batch(3))
    (checkpoint,) = (path.parent for path in home.glob(".local/**/state_dict.pth"))
    assert checkpoint.name == seen[-1]
    with init() as context:
        trial = TinyTrial(context)
        Trainer(trial, context).fit(max_length=Batch(3), latest_checkpoint=form(checkpoint))
        assert context.get_initial_batch() == 3


def test_a_checkpoint_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint abc: neither"), init() as context:
        Trainer(TinyTrial(context), context).fit(max_length=Batch(3), latest_checkpoint="abc")


@pytest.mark.parametrize("name", ["max_length", "reporting_period", "validation_period", "checkpoint_period"])
def test_a_length_without_a_unit_is_refused_by_name(home: Path, name: str) -> None:
    arguments: dict[str, Any] = {"max_length": Batch(3), name: 10}
    with pytest.raises(InvalidTrialError, match=f"fit got {name}=10, which has no unit"), init() as context:
        Trainer(TinyTrial(context), context).fit(**arguments)


@pytest.mark.parametrize("value", [1.5, "10", [1, "2"], None])
def test_a_unit_counts_whole_numbers(value: Any) -> None:
    with pytest.raises(InvalidTrialError, match="is not a whole number") as caught:
        Epoch(value)
    assert caught.value.hint == "write Epoch(100), or Epoch([10, 100])"


@pytest.mark.parametrize(("trial", "what"), [(TinyTrial, "TinyTrial"), (3, "int")])
def test_a_trainer_needs_a_trial_that_was_made(home: Path, trial: Any, what: str) -> None:
    with pytest.raises(InvalidTrialError, match=f"Trainer got {what}, not an instance"), init() as context:
        Trainer(trial, context)


def test_the_hint_is_in_the_error_that_a_script_gets(home: Path) -> None:
    with (
        pytest.raises(
            InvalidTrialError, match=r"fit got no max_length\n  hint: pass e.g. max_length=pytorch\.Epoch"
        ),
        init() as context,
    ):
        Trainer(TinyTrial(context), context).fit()


def test_the_profiler_of_former_days_is_accepted_and_said_to_have_no_effect(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("determined").setLevel(logging.INFO)
    with init() as context:
        trainer = Trainer(TinyTrial(context), context)
        trainer.configure_profiler(enabled=True, sync_timings=False, begin_on_batch=0, end_after_batch=2)
    assert "use context.set_profiler for torch's profiler" in caplog.text


def test_test_mode_trains_one_batch(home: Path) -> None:
    with init() as context:
        Trainer(TinyTrial(context), context).fit(max_length=Batch(100), test_mode=True)
    found = records(own_runs(home)[0])
    assert (steps(found, Training), steps(found, Validation), steps(found, Checkpoint)) == ([1], [1], [1])


def test_a_script_in_a_run_writes_the_records_of_that_run(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder.drive(TinyTrial, max_length=Length("batches", 3))
    config = {"searcher": {"metric": "validation_loss"}, "min_validation_period": {"batches": 2}}
    info = folder.info(
        hparams={"width": 5}, config=config, max_length=Length("batches", 7), checkpoints=(first.newest,)
    )
    info.save(Path(info.run_dir))
    monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
    with init() as context:
        assert (context.get_hparam("width"), context.get_trial_seed(), context.get_initial_batch()) == (
            5,
            7,
            3,
        )
        Trainer(TinyTrial(context), context).fit()
    found = records(Path(info.run_dir))
    assert steps(found, Restored) == [3]
    assert steps(found, Validation) == [4, 6, 7]
    assert found[-1] == Ended(ExitReason.COMPLETED)


def test_invalid_hyperparameters_end_the_block_and_not_the_script(home: Path) -> None:
    with init():
        raise InvalidHP("too deep")
    ended = records(own_runs(home)[0])[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.message.startswith("InvalidHP: too deep")) == (ExitReason.INVALID_HP, True)


def test_a_failing_script_is_recorded_and_fails(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), init():
        raise ZeroDivisionError
    ended = records(own_runs(home)[0])[-1]
    assert isinstance(ended, Ended)
    assert ended.reason is ExitReason.ERROR


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "fit got no max_length"),
        ({"max_length": Batch(0)}, "max_length is"),
        ({"max_length": Batch(2), "checkpoint_policy": "some"}, "checkpoint_policy is 'some'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTrialError, match=why), init() as context:
        Trainer(TinyTrial(context), context).fit(**arguments)


@pytest.mark.parametrize(
    ("unit", "period"),
    [
        (Batch(3), Period(3)),
        (Epoch(2), Period(10)),
        (Batch(0), Period(1)),
        (Epoch(-1), Period(1)),
        (Batch([5, 2]), Period(at=(2, 5))),
        (Epoch({1, 3}), Period(at=(5, 15))),
    ],
)
def test_units_become_periods_in_batches(unit: Any, period: Period) -> None:
    assert unit.period(Units(epoch=5), "validation_period") == period
