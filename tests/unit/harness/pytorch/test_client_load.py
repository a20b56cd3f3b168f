"""A checkpoint that a PyTorch trial wrote, loaded by the client."""

from __future__ import annotations

import torch

from determined.experimental import client
from tests.unit.harness.pytorch.driving import TinyTrial


def test_the_trial_comes_back_with_its_weights(folder, tmp_path):
    outcome = folder.drive(TinyTrial)
    directory = folder.checkpoints / outcome.newest
    assert client.Checkpoint.parse_metadata(directory)["framework"].startswith("torch-")
    trial = client.Checkpoint.load_from_path(str(directory), trial_class=TinyTrial, map_location="cpu")
    stored = folder.state(outcome.newest)["models_state_dict"][0]
    assert all(torch.equal(value, stored[name]) for name, value in trial.model.state_dict().items())
