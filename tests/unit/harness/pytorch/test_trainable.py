from __future__ import annotations

from typing import Any

import pytest
import torch

from determined._contract.errors import InvalidTrialError
from determined._contract.records import Training, decode
from determined._contract.run_info import Length
from determined._run.run import ChiefRun
from determined.pytorch import PyTorchCallback, _trainable
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

EVERY = {"scheduling_unit": 1}


class Indexed(TinyTrial):
    """Its only metric is the number of the batch."""

    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        return {"index": torch.tensor(batch_idx)}


def test_a_report_in_every_batch_is_that_of_its_batch(folder: Folder) -> None:
    outcome = folder.drive(Indexed, config=EVERY, max_length=Length("batches", 12))
    assert outcome.training == [
        (batch, {"batches": batch, "epochs": batch // 5, "index": batch - 1.0}) for batch in range(1, 13)
    ]


def recorded_before_each_batch(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, *, moment: float, callbacks: bool = False
) -> list[int]:
    recorded, seen = [0], []
    record = ChiefRun.report_windows
    monkeypatch.setattr(_trainable, "_MAX_REPORT_DELAY", moment)

    def noted(run: ChiefRun, found: Any) -> None:
        recorded.extend(steps for steps, _ in found)
        record(run, found)

    monkeypatch.setattr(ChiefRun, "report_windows", noted)

    class Watch(PyTorchCallback):
        def on_training_workload_end(self, avg_metrics: Any, batch_metrics: Any) -> None:
            assert len(batch_metrics) == 1

    class Trial(Indexed):
        def build_callbacks(self) -> Any:
            return {"watch": Watch()} if callbacks else {}

        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
            seen.append(recorded[-1])
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder.drive(Trial, config=EVERY, max_length=Length("batches", 6))
    return seen


def test_reports_that_come_fast_wait_for_each_other_but_for_the_first(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_before_each_batch(folder, monkeypatch, moment=1e9) == [0, 1, 1, 1, 1, 1]


def test_reports_that_come_slowly_are_made_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded_before_each_batch(folder, monkeypatch, moment=0.0) == [0, 1, 2, 3, 4, 5]


def test_reports_that_a_callback_wants_to_see_are_made_at_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = recorded_before_each_batch(folder, monkeypatch, moment=1e9, callbacks=True)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_what_waits_is_recorded_when_the_trial_fails(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trainable, "_MAX_REPORT_DELAY", 1e9)

    class Trial(Indexed):
        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
            if batch_idx == 4:
                raise ZeroDivisionError
            return super().train_batch(batch, epoch_idx, batch_idx)

    with pytest.raises(ZeroDivisionError):
        folder.drive(Trial, config=EVERY)
    assert folder.run is not None
    folder.run.close()
    lines = (folder.path / "run-0" / "events.jsonl").read_bytes().splitlines()
    found = [line.record.steps_completed for line in map(decode, lines) if isinstance(line.record, Training)]
    assert found == [1, 2, 3, 4]


def test_a_trial_that_asks_to_stop_stops_at_the_next_report(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trainable, "_MAX_REPORT_DELAY", 1e9)

    class Trial(Indexed):
        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
            self.context.set_stop_requested(batch_idx == 3)
            return super().train_batch(batch, epoch_idx, batch_idx)

    outcome = folder.drive(Trial, config={"scheduling_unit": 2})
    assert [steps for steps, _ in outcome.training] == [2, 4]


def test_metrics_that_change_within_a_report_are_refused(folder: Folder) -> None:
    class Trial(TinyTrial):
        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
            return {f"loss{batch_idx}": 0.0}

    with pytest.raises(InvalidTrialError, match="returned the metrics loss1, but loss0 before"):
        folder.drive(Trial)
