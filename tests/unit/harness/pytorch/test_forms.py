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

from determined._contract.errors import CheckpointError
from determined._contract.records import Restored
from determined._contract.run_info import Length
from determined.pytorch import load_trial_from_checkpoint_path
from determined.pytorch._checkpoint import read
from tests.unit.harness.pytorch.driving import Folder, TinyTrial
from tests.unit.harness.pytorch.test_dialect import OldTrial

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
    (directory / "state_dict.pth").write_bytes(raw.replace(b"test_forms\n", b"test_gones\n"))
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
