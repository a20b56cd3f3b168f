"""Compiled models are wrapped, trained, saved and restored as any other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from determined._contract.run_info import Length
from tests.unit.harness.pytorch.driving import Folder, TinyTrial


class Compiled(TinyTrial):
    def __init__(self, context: Any) -> None:
        self.context = context
        model = torch.compile(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), backend="eager")
        self.model = context.wrap_model(model)
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))


class InPlace(Compiled):
    def __init__(self, context: Any) -> None:
        self.context = context
        self.model = context.wrap_model(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)))
        self.model.compile(backend="eager")
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))


def plain(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return dict(state["models_state_dict"][0])


def test_a_compiled_trial_goes_on_to_the_bit_and_its_weights_fit_the_plain_model(folder: Folder) -> None:
    whole = folder.drive(Compiled)
    first = folder.drive(Compiled, max_length=Length("batches", 5))
    rest = folder.drive(Compiled, checkpoints=(first.newest,))
    one, other = (plain(folder.state(outcome.newest)) for outcome in (whole, rest))
    assert all(torch.equal(one[name], other[name]) for name in one)
    nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).load_state_dict(one)


def test_a_checkpoint_of_either_kind_fits_the_other(folder: Folder) -> None:
    first = folder.drive(Compiled, max_length=Length("batches", 5))
    second = folder.drive(InPlace, max_length=Length("batches", 7), checkpoints=(first.newest,))
    third = folder.drive(Compiled, max_length=Length("batches", 9), checkpoints=(second.newest,))
    assert third.checkpoints == [9]
