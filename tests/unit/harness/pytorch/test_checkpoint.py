"""Checkpoints as Determined 0.12 to 0.38 wrote them, remade from the description of their files."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import Restored
from determined._contract.run_info import Length
from determined.pytorch import LRScheduler, PyTorchCallback, load_trial_from_checkpoint_path
from determined.pytorch._checkpoint import freeze, read, thaw
from tests.unit.harness.pytorch.driving import Folder, TinyTrial
from tests.unit.harness.pytorch.test_trial import OldTrial

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


CODE = """
from tests.unit.harness.pytorch.driving import TinyTrial

class Trial(TinyTrial):
    def __init__(self, context):
        from beside import width
        self.width = width * context.get_hparam("width")
        super().__init__(context)
"""


pickler = importlib.import_module("cloudpickle") if importlib.util.find_spec("cloudpickle") else pickle


class Unknown:
    """What user code may have put into a checkpoint."""


def random_states() -> dict[str, Any]:
    return {
        "cpu_rng_state": torch.get_rng_state(),
        "np_rng_state": np.random.get_state(),  # noqa: NPY002
        "random_rng_state": random.getstate(),
    }


def written_by_0_38(directory: Path, weights: Any, **more: Any) -> Path:
    directory.mkdir(parents=True)
    optimizer = {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0, 1]}]}
    state = {
        "models_state_dict": [weights],
        "optimizers_state_dict": [optimizer],
        "lr_schedulers_state_dict": [{"last_epoch": 3, "base_lrs": [np.float32(0.1)]}],
        "callbacks": {"early": {"best": np.float64(0.5), "seen": np.arange(3), "ok": np.bool_(True)}},
        "rng_state": random_states(),
        **more,
    }
    torch.save(state, directory / "state_dict.pth")
    (directory / "trial_state.pkl").write_bytes(pickle.dumps({"trial_id": 9, "batches_trained": 3}))
    load_data = {
        "trial_type": "PyTorchTrial",
        "experiment_config": {"name": "theirs", "entrypoint": "python3 train.py"},
        "hparams": {"width": 2},
        "trial_cls_spec": "theirs_def:Trial",
        "is_trainer": False,
    }
    (directory / "load_data.json").write_text(json.dumps(load_data))
    metadata = {"determined_version": "0.38.1", "steps_completed": 3, "framework": "torch-2.5.1"}
    (directory / "metadata.json").write_text(json.dumps({**metadata, "format": "pickle"}))
    (directory / "code").mkdir()
    (directory / "code" / "theirs_def.py").write_text(CODE)
    (directory / "code" / "beside.py").write_text("width = 3\n")
    return directory


def written_by_0_13(directory: Path, weights: Any, place: str = "state_dict.pth") -> Path:
    file = directory / place
    file.parent.mkdir(parents=True)
    state = {
        "model_state_dict": weights,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "lr_scheduler": None,
        "rng_state": random_states(),
    }
    torch.save(state, file, pickle_module=pickler, _use_new_zipfile_serialization=False)
    (directory / "workload_sequencer.pkl").write_bytes(pickle.dumps({"total_batches_processed": 3}))
    config = {"entrypoint": "theirs_def:Trial", "hyperparameters": {"width": {"type": "const", "val": 2}}}
    metadata = {"determined_version": "0.13.13", "framework": "torch-1.4.0", "format": "cloudpickle"}
    (directory / "metadata.json").write_text(json.dumps({**metadata, "experiment_config": config}))
    (directory / "code").mkdir()
    (directory / "code" / "theirs_def.py").write_text(CODE)
    (directory / "code" / "beside.py").write_text("width = 3\n")
    return directory


def weights() -> dict[str, torch.Tensor]:
    return dict(nn.Linear(2, 1).state_dict())


def test_one_of_0_38_loads_safely_with_its_own_code(tmp_path: Path) -> None:
    theirs = weights()
    trial = load_trial_from_checkpoint_path(written_by_0_38(tmp_path / "a", theirs))
    assert trial.width == 6  # type: ignore[attr-defined]
    assert torch.equal(trial.model.weight, theirs["weight"])  # type: ignore[attr-defined]
    state = read(tmp_path / "a")
    assert state["callbacks"]["early"]["seen"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "place", ["state_dict.pth", "determined/state_dict.pth", "pedl/state_dict.pth", "checkpoint.pt"]
)
def test_one_of_0_13_is_found_wherever_its_time_put_it(tmp_path: Path, place: str) -> None:
    theirs = weights()
    trial = load_trial_from_checkpoint_path(written_by_0_13(tmp_path / "a", theirs, place))
    assert trial.width == 6  # type: ignore[attr-defined]
    assert torch.equal(trial.model.weight, theirs["weight"])  # type: ignore[attr-defined]


def test_the_old_names_become_todays(tmp_path: Path) -> None:
    state = read(written_by_0_13(tmp_path / "a", weights()))
    assert sorted(state) == [
        "lr_schedulers_state_dict",
        "models_state_dict",
        "optimizers_state_dict",
        "rng_state",
    ]
    assert (len(state["models_state_dict"]), state["lr_schedulers_state_dict"]) == (1, [])


def test_weights_alone_are_a_checkpoint_too(tmp_path: Path) -> None:
    theirs = weights()
    torch.save(theirs, tmp_path / "checkpoint.pt")
    trial = load_trial_from_checkpoint_path(tmp_path, trial_class=TinyTrial)
    assert torch.equal(trial.model.weight, theirs["weight"])  # type: ignore[attr-defined]


def test_weights_of_several_processes_lose_their_prefix(tmp_path: Path) -> None:
    theirs = weights()
    parallel = {f"module.{name}": value for name, value in theirs.items()}
    trial = load_trial_from_checkpoint_path(written_by_0_38(tmp_path / "a", parallel), trial_class=TinyTrial)
    assert torch.equal(trial.model.weight, theirs["weight"])  # type: ignore[attr-defined]


def test_a_trial_of_the_old_dialect_gets_its_model_built(tmp_path: Path) -> None:
    theirs = weights()
    trial = load_trial_from_checkpoint_path(written_by_0_13(tmp_path / "a", theirs), trial_class=OldTrial)
    assert torch.equal(trial.context.get_model().weight, theirs["weight"])


def test_what_is_more_than_weights_is_refused_until_the_user_trusts_it(tmp_path: Path) -> None:
    theirs = weights()
    directory = written_by_0_38(tmp_path / "a", theirs, added=Unknown())
    with pytest.raises(CheckpointError, match=r"more than weights and numbers: .*Unknown") as caught:
        load_trial_from_checkpoint_path(directory)
    assert 'torch_load_kwargs={"weights_only": False}' in caught.value.hint
    trial = load_trial_from_checkpoint_path(directory, torch_load_kwargs={"weights_only": False})
    assert torch.equal(trial.model.weight, theirs["weight"])  # type: ignore[attr-defined]


def test_a_class_that_is_gone_is_named(tmp_path: Path) -> None:
    directory = written_by_0_38(tmp_path / "a", weights())
    gone = b"ctheir_gone_package\nThing\n."
    (directory / "state_dict.pth").write_bytes(gone)
    with pytest.raises(CheckpointError, match="more than weights"):
        load_trial_from_checkpoint_path(directory)
    torch.save({"x": Unknown()}, directory / "state_dict.pth", _use_new_zipfile_serialization=False)
    raw = (directory / "state_dict.pth").read_bytes()
    (directory / "state_dict.pth").write_bytes(raw.replace(b"test_checkpoint\n", b"test_gone\n"))
    with pytest.raises(CheckpointError, match=r"needs a module that is not installed|cannot be read"):
        load_trial_from_checkpoint_path(directory, torch_load_kwargs={"weights_only": False})


def test_a_run_takes_the_weights_of_one_that_determined_wrote(folder: Folder) -> None:
    theirs, seen = weights(), []
    written_by_0_38(folder.checkpoints / "theirs", theirs)

    class Second(TinyTrial):
        def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> Any:
            seen.append(self.model.weight.detach().clone())
            return super().train_batch(batch, epoch_idx, batch_idx)

    one = Length("batches", 1)
    outcome = folder.drive(Second, max_length=one, checkpoints=("theirs",), warm_start=True)
    assert torch.equal(seen[0], theirs["weight"])
    assert outcome.of(Restored) == [Restored("theirs", 0)]
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be read"):
        folder.drive(Second, checkpoints=("theirs",))


def test_a_checkpoint_that_names_no_class_asks_for_one(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="does not name its trial class"):
        load_trial_from_checkpoint_path(tmp_path)
