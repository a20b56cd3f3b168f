"""Our own frameworks keep the contract, and one that breaks it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from determined import Trial
from determined._contract.records import ExitReason
from determined.testing import TrainableContract

if TYPE_CHECKING:
    from pathlib import Path

    from determined._run.run import Run


class TestPyTorch(TrainableContract):
    @pytest.fixture(autouse=True)
    def _trial(self) -> None:
        pytest.importorskip("torch")
        from tests.unit.harness.pytorch.driving import TinyTrial

        self.trial_class = TinyTrial


class TestKeras(TrainableContract):
    metric = "val_loss"

    @pytest.fixture(autouse=True)
    def _trial(self) -> None:
        pytest.importorskip("tensorflow")
        from tests.unit.harness.keras.driving import Tiny

        self.trial_class = Tiny


class Forgetful(Trial):
    """It trains nothing and saves nothing."""

    _runner = f"{__name__}:train"


def train(_trial_class: type, run: Run) -> ExitReason:
    run.report_training(6, {"loss": 1.0})
    run.report_validation(6, {"validation_loss": 1.0})
    return ExitReason.COMPLETED


class Contract(TrainableContract):
    trial_class = Forgetful


def test_a_framework_that_saves_nothing_is_found(tmp_path: Path) -> None:
    Contract().test_a_seed_gives_the_same_training_again(tmp_path / "seed")
    with pytest.raises(AssertionError):
        Contract().test_it_trains_validates_and_saves_as_long_as_it_should(tmp_path / "saves")
    with pytest.raises(IndexError):
        Contract().test_a_stop_is_heeded_after_one_batch_with_a_checkpoint(tmp_path / "stop")
