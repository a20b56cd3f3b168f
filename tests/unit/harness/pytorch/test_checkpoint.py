from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detbuild.store.home import Home
from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.run_info import Length
from determined._trial.state import copy_code
from determined.pytorch import LRScheduler, PyTorchCallback, load_trial_from_checkpoint_path
from determined.pytorch._portable import freeze, thaw
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

THREE = Length("batches", 3)
MODEL_DEF = """
from tests.unit.harness.pytorch.driving import TinyTrial

class Saved(TinyTrial):
    def __init__(self, context):
        self.width = context.get_hparam("width")
        super().__init__(context)
"""


class Keeper(PyTorchCallback):
    def on_checkpoint_save_start(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["added"] = np.arange(2)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": np.float64(3), "kinds": {1, 2}, "when": Path("x")}


class Rich(TinyTrial):
    def __init__(self, context: Any) -> None:
        super().__init__(context)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 4])
        context.wrap_lr_scheduler(scheduler, LRScheduler.StepMode.STEP_EVERY_BATCH)
        self.norm = context.wrap_model(nn.BatchNorm1d(2))

    def build_callbacks(self) -> Any:
        return {"keeper": Keeper()}


def test_a_checkpoint_holds_what_determined_has_in_it_and_loads_safely(folder: Folder) -> None:
    (folder.path / "context" / "model_def.py").write_text("x = 1\n")
    outcome = folder.drive(Rich, max_length=THREE, hparams={"width": 4}, config={"name": "rich"})
    directory = folder.checkpoints / outcome.newest
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    assert files == [
        "code/model_def.py",
        "load_data.json",
        "manifest.json",
        "metadata.json",
        "state_dict.pth",
        "trial_state.json",
    ]
    state = folder.state(outcome.newest)
    assert sorted(state) == [
        "added",
        "callbacks",
        "data",
        "lr_schedulers_state_dict",
        "models_state_dict",
        "optimizers_state_dict",
        "rng_state",
    ]
    assert [len(state[key]) for key in sorted(state) if key.endswith("state_dict")] == [1, 2, 1]
    assert sorted(state["rng_state"]) == ["cpu_rng_state", "np_rng_state", "random_rng_state"]
    assert json.loads((directory / "trial_state.json").read_text()) == {
        "data_seed": 7,
        "epochs_completed": 0,
        "steps_completed": 3,
        "trial_id": 1,
        "validated": 3,
    }
    assert json.loads((directory / "load_data.json").read_text()) == {
        "experiment_config": {"name": "rich"},
        "hparams": {"width": 4},
        "is_trainer": False,
        "trial_cls_spec": f"{Rich.__module__}:Rich",
        "trial_type": "PyTorchTrial",
    }
    metadata = json.loads((directory / "metadata.json").read_text())
    assert (metadata["steps_completed"], metadata["format"]) == (3, "pickle")
    assert metadata["framework"] == f"torch-{torch.__version__}"


def test_plain_weights_load_without_detbuild(folder: Folder) -> None:
    outcome = folder.drive(TinyTrial, max_length=THREE)
    model = nn.Linear(2, 1)
    model.load_state_dict(folder.state(outcome.newest)["models_state_dict"][0])


def test_whatever_a_state_holds_comes_back_as_it_was() -> None:
    state = {
        "array": np.arange(3),
        "set": {1},
        "path": [Path("x")],
        "tensor": torch.ones(2),
        "plain": (1, None),
    }
    frozen = freeze(state, "the state")
    assert frozen["tensor"] is state["tensor"]
    back = thaw(frozen)
    assert back["array"].tolist() == [0, 1, 2]
    assert (back["set"], back["path"], back["plain"]) == ({1}, [Path("x")], (1, None))


def test_a_models_state_keeps_the_versions_of_its_layers() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    state["extra"] = np.ones(1)  # type: ignore[assignment]
    assert freeze(state, "the model")._metadata == state._metadata


def test_a_state_that_cannot_be_pickled_is_named(folder: Folder) -> None:
    class Bad(PyTorchCallback):
        def state_dict(self) -> dict[str, Any]:
            return {"function": lambda: None}

    class Trial(TinyTrial):
        def build_callbacks(self) -> Any:
            return {"bad": Bad()}

    with pytest.raises(InvalidTrialError, match="the state of a callback cannot be saved: it has a function"):
        folder.drive(Trial, max_length=THREE)
    assert list(folder.checkpoints.iterdir()) == []


def test_weights_saved_by_several_processes_fit_one(folder: Folder) -> None:
    outcome = folder.drive(TinyTrial, max_length=THREE)
    path = folder.checkpoints / outcome.newest / "state_dict.pth"
    state = torch.load(path, weights_only=True)
    weights = state["models_state_dict"][0]
    state["models_state_dict"] = [{f"module.{name}": value for name, value in weights.items()}]
    torch.save(state, path)
    trial = load_trial_from_checkpoint_path(folder.checkpoints / outcome.newest, trial_class=TinyTrial)
    assert torch.equal(trial.model.weight, weights["weight"])  # type: ignore[attr-defined]


def test_a_model_that_has_changed_is_told_from_a_damaged_checkpoint(folder: Folder) -> None:
    class Wider(TinyTrial):
        def __init__(self, context: Any) -> None:
            self.context = context
            self.model = context.wrap_model(nn.Linear(2, 3))
            self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.1))

    first = folder.drive(TinyTrial, max_length=THREE)
    with pytest.raises(CheckpointError, match="does not fit number 0 of the trial's models"):
        folder.drive(Wider, checkpoints=(first.newest,))
    with pytest.raises(CheckpointError, match="the trial has 2 models, but its checkpoint has 1"):
        folder.drive(Rich, checkpoints=(first.newest,))


def test_a_trial_is_loaded_from_the_code_in_its_checkpoint(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = folder.path / "context"
    (context / "saved_model_def.py").write_text(MODEL_DEF)
    monkeypatch.syspath_prepend(context)
    import saved_model_def  # type: ignore[import-not-found]

    outcome = folder.drive(saved_model_def.Saved, max_length=THREE, hparams={"width": 6})
    (context / "saved_model_def.py").write_text("raise ImportError('the code has changed')")
    trial = load_trial_from_checkpoint_path(folder.checkpoints / outcome.newest)
    assert trial.width == 6  # type: ignore[attr-defined]
    weights = folder.state(outcome.newest)["models_state_dict"][0]
    assert torch.equal(trial.model.weight, weights["weight"])  # type: ignore[attr-defined]


def test_a_directory_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no state_dict.pth"):
        load_trial_from_checkpoint_path(tmp_path, trial_class=TinyTrial)


def test_the_copy_of_the_code_never_holds_storage_or_caches(tmp_path: Path) -> None:
    for name in (
        "model_def.py",
        "sub/layers.py",
        "__pycache__/x.pyc",
        ".git/config",
        "checkpoints/a/state_dict.pth",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to("model_def.py")
    Home.open(tmp_path / "sub" / "home")
    target = tmp_path / "checkpoints" / "b" / "code"
    copy_code(tmp_path, target, (tmp_path / "checkpoints",))
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir())
    assert found == ["link.py", "model_def.py", "sub/layers.py"]
    assert (target / "link.py").is_symlink()


def test_a_directory_of_data_is_not_copied_into_every_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    with (tmp_path / "context" / "data.bin").open("wb") as file:
        file.truncate(96 << 20)
    copy_code(tmp_path / "context", tmp_path / "copy", ())
    assert not (tmp_path / "copy").exists()
