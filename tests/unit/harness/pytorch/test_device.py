from __future__ import annotations

import random
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from determined._contract.errors import InvalidTrialError
from determined._run.processes import Alone, DistributedContext, Rank
from determined.pytorch import to_device
from determined.pytorch._device import (
    capture,
    choose_device,
    inner,
    parallel,
    preserved,
    restore,
    seed_all,
    to_cpu,
)

Pair = namedtuple("Pair", "x y")  # noqa: PYI024


def test_everything_that_can_be_moved_is_moved_and_keeps_its_shape() -> None:
    data = {
        "pair": Pair(np.float32([1]), torch.ones(1)),
        "list": [np.arange(2), "text"],
        "tuple": (torch.zeros(1), None),
        "ordered": OrderedDict(a=np.bool_([True])),
    }
    moved = to_device(data, "meta")
    assert [moved["pair"].x.device.type, moved["pair"].y.device.type] == ["meta", "meta"]
    assert [moved["list"][0].device.type, moved["list"][1]] == ["meta", "text"]
    assert (type(moved["tuple"]), moved["tuple"][1]) == (tuple, None)
    assert (type(moved["ordered"]), moved["ordered"]["a"].device.type) == (OrderedDict, "meta")


def test_a_batch_that_is_on_the_cpu_stays_what_it_is() -> None:
    batch = [torch.zeros(1), torch.ones(1)]
    assert to_cpu(batch) is batch
    assert to_cpu(batch[0]) is batch[0]
    mixed = to_cpu([batch[0], np.ones(2)])
    assert [type(item) for item in mixed] == [torch.Tensor, torch.Tensor]


def test_the_device_is_the_one_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    second = DistributedContext.of(Rank(rank=1, size=2, local_rank=1, local_size=2), Alone())
    assert choose_device(0) == choose_device(2, second) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert (choose_device(1), choose_device(2, second)) == (torch.device("cuda", 0), torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidTrialError, match="has 2 processes, but torch sees 1 GPU"):
        choose_device(2, second)


def test_the_random_states_are_restored_after_the_block() -> None:
    seed_all(3)
    expected = random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002
    seed_all(3)
    with preserved():
        random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected  # noqa: NPY002


def test_a_captured_state_survives_safe_loading(tmp_path: Path) -> None:
    seed_all(5)
    torch.save(capture(), tmp_path / "state")
    expected = random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002
    restore(torch.load(tmp_path / "state", weights_only=True))
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected  # noqa: NPY002


def test_the_users_model_is_found_inside_its_wrappers() -> None:
    model = torch.nn.Linear(1, 1)
    compiled = torch.nn.Module()
    compiled._orig_mod = model
    assert inner(model) is inner(compiled) is model


def test_a_model_without_trainable_weights_is_not_wrapped() -> None:
    frozen = torch.nn.Linear(1, 1).requires_grad_(requires_grad=False)
    assert parallel(frozen, torch.device("cpu")) is frozen
