"""NaN and want of memory are told in plain words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import Length
from determined._run.outcome import failed
from determined.pytorch import PyTorchCallback
from tests.unit.harness.pytorch.driving import Folder, TinyTrial


class Diverging(TinyTrial):
    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        bad = batch_idx in {6, 7}
        return {"loss": torch.tensor(float("nan") if bad else 1.0), "score": 1.0}

    def evaluate_batch(self, batch: torch.Tensor) -> Any:
        return {"validation_loss": float("nan")}


class Foreign(PyTorchCallback):
    def on_epoch_end(self) -> None: ...

    def on_validation_end(self, metrics: Any) -> None: ...


class WithForeign(TinyTrial):
    def build_callbacks(self) -> Any:
        return {"foreign": Foreign()}


def test_a_hook_that_nothing_calls_is_named_with_the_one_it_may_be(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("determined").setLevel(logging.WARNING)
    folder.drive(WithForeign)
    told = [record.getMessage() for record in caplog.records if "is never called" in record.getMessage()]
    assert told == [
        "on_epoch_end of the callback Foreign is never called; did you mean on_training_epoch_end?"
    ]


def test_nan_is_told_once_with_the_batch_it_began_in(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("determined").setLevel(logging.WARNING)
    config = {"scheduling_unit": 5, "min_validation_period": {"batches": 5}}
    outcome = folder.drive(Diverging, config=config, max_length=Length("batches", 15))
    told = [record.getMessage() for record in caplog.records if "NaN" in record.getMessage()]
    assert [message.partition(";")[0] for message in told] == [
        "validation returned NaN for validation_loss",
        "train_batch returned NaN for loss for batch 6",
    ]
    assert [steps for steps, _ in outcome.training] == [5, 10, 15]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
            "the GPU's memory is full",
        ),
        (RuntimeError("CUDA error: out of memory"), "the GPU's memory is full"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
            "the host's memory is full",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "the host's memory is full"),
        (OSError(12, "Cannot allocate memory"), "the host's memory is full"),
        (MemoryError(), "the host's memory is full"),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                "dataloader's workers are out of shared memory."
            ),
            "use fewer data loader workers: /dev/shm of this host is full",
        ),
    ],
)
def test_want_of_memory_names_the_memory_and_what_to_lower(error: Exception, hint: str) -> None:
    ended = failed(error, Stage.TRAIN, Path("/nowhere")).ended
    assert (ended.reason, ended.stage) == (ExitReason.ERROR, Stage.TRAIN)
    assert hint in ended.hint
