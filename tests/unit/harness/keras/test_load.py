from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from determined._contract.errors import CheckpointError
from determined.keras import (
    load_model_from_checkpoint_path,
)
from tests.unit.harness.keras.driving import Folder, Tiny, keras, records


def test_a_model_is_loaded_from_a_checkpoint_alone(folder: Folder) -> None:
    (folder.path / "context" / "model_def.py").write_text(
        "from tests.unit.harness.keras.driving import Tiny\nclass Mine(Tiny):\n    pass\n"
    )
    mine = type("Mine", (Tiny,), {"__module__": "model_def"})
    outcome = folder.drive(mine)
    model = load_model_from_checkpoint_path(folder.checkpoints / outcome.newest)
    metrics = model.evaluate(*records(4), verbose=0, return_dict=True)
    assert metrics["loss"] == pytest.approx(outcome.validations[-1][1]["val_loss"])


def test_a_class_that_is_passed_builds_the_model_even_if_its_weights_come_with_the_first_batch(
    folder: Folder,
) -> None:
    class Lazy(Tiny):
        def build_model(self) -> Any:
            model = self.context.wrap_model(keras.Sequential([keras.layers.Dense(1)]))
            model.compile(optimizer="sgd", loss="mse")
            return model

    outcome = folder.drive(Lazy)
    model = load_model_from_checkpoint_path(folder.checkpoints / outcome.newest, trial_class=Lazy)
    metrics = model.evaluate(*records(4), verbose=0, return_dict=True)
    assert metrics["loss"] == pytest.approx(outcome.validations[-1][1]["val_loss"])


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_model_from_checkpoint_path(tmp_path)
