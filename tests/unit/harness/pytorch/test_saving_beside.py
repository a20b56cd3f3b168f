"""A checkpoint that is written while training goes on holds what training was when it was due."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from determined._contract.run_info import Length
from determined.pytorch import PyTorchCallback, _checkpoint
from determined.pytorch._checkpoint import HostCopy
from tests.unit.harness.pytorch.driving import Folder, TinyTrial

EVERY_FOUR = {"min_checkpoint_period": {"batches": 4}, "scheduling_unit": 1, "checkpoint_policy": "none"}


class Adam(TinyTrial):
    """Says which batches it has trained, and keeps its weights after each."""

    passed: threading.Event
    weights: dict[int, torch.Tensor]

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.context.optimizers.clear()
        self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.parameters()))

    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        metrics = super().train_batch(batch, epoch_idx, batch_idx)
        self.weights[batch_idx + 1] = self.model.weight.detach().clone()
        if batch_idx == 6:
            self.passed.set()
        return metrics


@pytest.fixture
def trial() -> type[Adam]:
    return type("Trial", (Adam,), {"passed": threading.Event(), "weights": {}})


def test_it_holds_the_weights_of_its_batch(
    folder: Folder, trial: type[Adam], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, threads = _checkpoint.write, []

    def late(*args: Any) -> None:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            assert trial.passed.wait(20)
        write(*args)

    monkeypatch.setattr(_checkpoint, "write", late)
    outcome = folder.drive(trial, max_length=Length("batches", 10), config=EVERY_FOUR)
    assert outcome.checkpoints == [4, 8, 10]
    # the last ones: the weights before the last validation, then the checkpoint after it
    assert [name.startswith("checkpoint") for name in threads] == [True, True, False, False]
    for record in [record for record in outcome.records if record.kind == "checkpoint"]:
        weights = folder.state(record.uuid)["models_state_dict"][0]["weight"]
        assert torch.equal(weights, trial.weights[record.steps_completed])


def test_a_run_goes_on_from_it_to_the_bit(folder: Folder, trial: type[Adam]) -> None:
    whole = folder.drive(trial, max_length=Length("batches", 10), config=EVERY_FOUR)
    first, _, last = [record for record in whole.records if record.kind == "checkpoint"]
    rest = folder.drive(trial, max_length=Length("batches", 10), config=EVERY_FOUR, checkpoints=(first.uuid,))
    states = [folder.state(uuid) for uuid in (last.uuid, rest.newest)]
    for part in ("models_state_dict", "optimizers_state_dict", "rng_state"):
        assert str(states[0][part]) == str(states[1][part])


def test_callbacks_that_look_at_the_files_find_them_at_once(folder: Folder, trial: type[Adam]) -> None:
    seen: list[Any] = []

    class Looking(PyTorchCallback):
        def on_checkpoint_write_end(self, checkpoint_dir: Any) -> None:
            seen.append((len(trial.weights), (checkpoint_dir / "state_dict.pth").is_file()))

    trial.build_callbacks = lambda _: {"looking": Looking()}  # type: ignore[method-assign, assignment]
    folder.drive(trial, max_length=Length("batches", 10), config=EVERY_FOUR)
    assert seen == [(4, True), (8, True), (10, True)]


def test_without_memory_for_a_copy_training_waits(
    folder: Folder, trial: type[Adam], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("determined.pytorch._checkpoint._SMALL", 0)
    monkeypatch.setattr("determined.pytorch._checkpoint.available", lambda: 0)
    threads: list[str] = []
    write = _checkpoint.write
    monkeypatch.setattr(
        _checkpoint, "write", lambda *args: (threads.append(threading.current_thread().name), write(*args))
    )
    folder.drive(trial, max_length=Length("batches", 5), config=EVERY_FOUR)
    assert threads == ["MainThread"] * 3  # batch 4; batch 5 before its validation, and after it


def test_a_copy_is_equal_and_apart_and_its_memory_is_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    tied = model.state_dict()
    state = {"model": tied, "again": [tied["0.weight"]], "plain": (1, "x", None), "empty": torch.empty(0)}
    keeper = HostCopy()
    first = keeper.copy_of(state)
    assert first["model"]._metadata == tied._metadata
    assert first["again"][0] is first["model"]["0.weight"]
    assert (first["plain"], first["empty"].numel()) == ((1, "x", None), 0)
    before = tied["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(first["model"]["0.weight"], before)
    second = keeper.copy_of(state)
    assert second["model"]["0.weight"].data_ptr() == first["model"]["0.weight"].data_ptr()
    assert torch.equal(second["model"]["0.weight"], model[0].weight)


def test_a_copy_keeps_strides_and_other_layouts() -> None:
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    copied = HostCopy().copy_of([image, image.to_sparse(), torch.tensor(3)])
    assert copied[0].stride() == image.stride()
    assert torch.equal(copied[1].to_dense(), image)
    assert copied[2].item() == 3


def test_allocate_gets_the_memory_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("determined.pytorch._checkpoint._SMALL", 1)
    keeper, state = HostCopy(), {"weights": [torch.ones(1000)]}
    keeper.allocate(state)
    copied = keeper.copy_of({**state, "more": torch.zeros(2)})
    assert torch.equal(copied["weights"][0], torch.ones(1000))
    assert copied["more"].tolist() == [0, 0]
