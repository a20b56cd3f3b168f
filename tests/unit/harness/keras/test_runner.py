from __future__ import annotations

from determined._records import ExitReason
from tests.unit.harness.keras.driving import Folder, Tiny


def test_a_trial_trains_validates_and_checkpoints(folder: Folder) -> None:
    outcome = folder.drive(Tiny, config={"min_validation_period": 5, "scheduling_unit": 5})
    assert outcome.reason is ExitReason.COMPLETED
    print(outcome)
    assert outcome.checkpoints == [5, 10]


def test_test_mode(folder: Folder) -> None:
    outcome = folder.drive(Tiny, test_mode=True)
    assert outcome.reason is ExitReason.COMPLETED
    print(outcome)
