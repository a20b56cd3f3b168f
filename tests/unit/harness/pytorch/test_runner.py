from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from determined._contract.errors import InvalidTrialError
from determined._contract.records import ExitReason, Restored, StageEntered
from determined._contract.run_info import Length
from determined.pytorch import DataLoader, PyTorchCallback, PyTorchTrialContext
from tests.unit.harness.pytorch.driving import Folder, Records, TinyTrial

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
