from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from determined import InvalidHP
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import (
    Checkpoint,
    Ended,
    ExitReason,
    Record,
    Restored,
    StageEntered,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import RUN_DIR_VARIABLE, Length
from determined._trial.schedule import Period, Units
from determined.pytorch import Batch, DataLoader, Epoch, PyTorchCallback, PyTorchTrialContext, Trainer, init
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial


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


DIGITS = Path(__file__).parents[4] / "examples" / "digits_pytorch"


def test_test_mode_trains_validates_checkpoints_and_restores_one_batch(folder: Folder) -> None:
    evaluated: list[int] = []

    class Trial(TinyTrial):
        def evaluate_batch(self, batch: Any, batch_idx: int) -> Any:  # type: ignore[override]
            evaluated.append(batch_idx)
            return super().evaluate_batch(batch)

    outcome = folder.drive(Trial, test_mode=True, config={"searcher": {"metric": "validation_loss"}})
    assert [steps for steps, _ in (*outcome.training, *outcome.validations)] == [1, 1]
    assert (outcome.reason, outcome.checkpoints, evaluated) == (ExitReason.COMPLETED, [1], [0])
    assert [restored.steps_completed for restored in outcome.of(Restored)] == [1]
    stages = [record.stage.value for record in outcome.of(StageEntered)]
    assert stages == ["build", "train", "validate", "checkpoint", "restore", "build", "restore"]


def test_test_mode_notices_a_searcher_metric_that_is_not_reported(folder: Folder) -> None:
    with pytest.raises(InvalidTrialError, match=r"validation reported only: validation_loss$"):
        folder.drive(TinyTrial, test_mode=True, config={"searcher": {"metric": "accuracy"}})


def test_test_mode_notices_weights_that_do_not_come_back(folder: Folder) -> None:
    class Forgetful(nn.Linear):
        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            return None

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            self.context = context
            self.model = context.wrap_model(Forgetful(2, 1))
            self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))

    with pytest.raises(InvalidTrialError, match="restored from the test's checkpoint differ"):
        folder.drive(Trial, test_mode=True)


def test_equal_seeds_give_equal_trials(folder: Folder) -> None:
    losses = [
        folder.drive(TinyTrial, trial_seed=seed, max_length=Length("batches", 3)).training
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_trial_that_is_done_is_not_trained_again(folder: Folder) -> None:
    first = folder.drive(TinyTrial, max_length=Length("batches", 4))
    again = folder.drive(TinyTrial, max_length=Length("batches", 4), checkpoints=(first.newest,))
    assert (again.reason, again.training, again.validations, again.checkpoints) == (
        ExitReason.COMPLETED,
        [],
        [],
        [],
    )


def test_the_context_answers_from_config_and_hyperparameters(folder: Folder) -> None:
    contexts: list[PyTorchTrialContext] = []

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            contexts.append(context)

    hparams = {"global_batch_size": 8, "nested": {"depth": 2}}
    config = {"data": {"path": "/data"}, "scheduling_unit": 2}
    folder.drive(Trial, max_length=Length("records", 24), hparams=hparams, config=config)
    (context,) = contexts
    assert context.get_hparams() == hparams
    assert context.get_hparam("nested") == {"depth": 2}
    assert (context.get_global_batch_size(), context.get_per_slot_batch_size()) == (8, 8)
    assert (context.get_data_config(), context.get_experiment_config()) == ({"path": "/data"}, config)
    assert (context.get_experiment_id(), context.get_trial_id(), context.get_trial_seed()) == (1, 1, 7)
    assert (context.distributed.get_rank(), context.distributed.get_size()) == (0, 1)
    assert context.get_initial_batch() == 0
    assert context.clock.batch_idx == 2
    assert context.get_tensorboard_path().name == "tensorboard"


def test_a_context_can_be_made_from_a_config_alone() -> None:
    context = PyTorchTrialContext.from_config({"hyperparameters": {"lr": 0.1}})
    assert context.get_hparam("lr") == 0.1
    with pytest.raises(ValueError, match="no IDs outside an experiment"):
        context.get_trial_id()


def test_a_missing_tensorboard_package_harms_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.get_tensorboard_writer().add_scalar("mine", 1.0, 0)

    assert folder.drive(Trial, max_length=Length("batches", 1)).checkpoints == [1]


def test_a_profiler_steps_with_every_batch_and_leaves_a_trace(folder: Folder) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            activities = [torch.profiler.ProfilerActivity.CPU]
            context.set_profiler(
                activities=activities, schedule=torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1)
            )

    folder.drive(Trial, max_length=Length("batches", 2))
    assert len(list(folder.path.glob("run-0/tensorboard/*.pt.trace.json"))) == 1


def test_batches_stay_where_the_loader_put_them_when_the_trial_says_so(folder: Folder) -> None:
    seen: list[type] = []

    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            context.experimental.disable_auto_to_device()

        def build_training_data_loader(self) -> Any:
            return DataLoader(Records(), batch_size=2, collate_fn=lambda items: torch.stack(items).numpy())

        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            seen.append(type(batch))
            return super().train_batch(self.context.to_device(batch), epoch_idx, batch_idx)

    folder.drive(Trial, max_length=Length("batches", 1))
    assert seen == [np.ndarray]


def test_importing_determined_imports_no_framework() -> None:
    code = "import sys, determined; sys.exit(bool({'torch', 'tensorflow', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digits_example_learns_nine_digits_in_ten(folder: Folder) -> None:
    spec = importlib.util.spec_from_file_location("digits_model_def", DIGITS / "model_def.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = yaml.safe_load((DIGITS / "const.yaml").read_text())
    outcome = folder.drive(
        module.DigitsTrial,
        config=config,
        hparams=config["hyperparameters"],
        max_length=Length("epochs", config["searcher"]["max_length"]["epochs"]),
    )
    assert outcome.reason is ExitReason.COMPLETED
    assert outcome.validations[-1][1]["accuracy"] > 0.9  # type: ignore[operator]
    assert config["searcher"]["metric"] in outcome.validations[-1][1]


def test_the_work_is_kept_when_the_last_validation_fails(folder: Folder) -> None:
    saved: list[str] = []

    class Watching(PyTorchCallback):
        def on_checkpoint_write_end(self, checkpoint_dir: Path) -> None:
            saved.append(checkpoint_dir.name)

    class Failing(TinyTrial):
        fails = True

        def evaluate_batch(self, batch: Any) -> Any:
            if self.fails and self.context.current_train_batch() == 4:
                raise RuntimeError("only at the end")
            return super().evaluate_batch(batch)

        def build_callbacks(self) -> Any:
            return {"watching": Watching()}

    with pytest.raises(RuntimeError, match="only at the end"):
        folder.drive(Failing, max_length=Length("batches", 5))
    (uuid,) = [path.name for path in folder.checkpoints.iterdir()]
    assert saved == []
    Failing.fails = False
    rest = folder.drive(Failing, max_length=Length("batches", 5), checkpoints=(uuid,))
    whole = folder.drive(TinyTrial, max_length=Length("batches", 5))
    assert rest.validations == whole.validations
    assert rest.training == []
