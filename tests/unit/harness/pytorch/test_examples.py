"""The examples train offline, from their own configs, and learn what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from determined._contract.records import ExitReason
from determined._contract.run_info import Length
from tests.unit.harness.pytorch.driving import Folder, Outcome

EXAMPLES = Path(__file__).parents[4] / "examples"


def trained(folder: Folder, name: str, **hparams: Any) -> Outcome:
    config = yaml.safe_load((EXAMPLES / name / "const.yaml").read_text())
    module, class_name = config["entrypoint"].split(":")
    spec = importlib.util.spec_from_file_location(f"{name}_{module}", EXAMPLES / name / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    length = config["searcher"]["max_length"]["epochs"]
    outcome = folder.drive(
        getattr(loaded, class_name),
        config=config,
        hparams={**config["hyperparameters"], **hparams},
        max_length=Length("epochs", length),
    )
    assert outcome.reason is ExitReason.COMPLETED
    assert config["searcher"]["metric"] in outcome.validations[-1][1]
    return outcome


def last(outcome: Outcome) -> dict[str, Any]:
    return dict(outcome.validations[-1][1])


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_cifar_like_images_are_told_apart(folder: Folder, mixed_precision: bool) -> None:
    assert last(trained(folder, "cifar_like_pytorch", mixed_precision=mixed_precision))["accuracy"] > 0.6


def test_the_gan_draws_the_ring(folder: Folder) -> None:
    assert last(trained(folder, "gan_pytorch"))["distance_to_ring"] < 0.25


def test_the_reducers_see_every_record(folder: Folder) -> None:
    outcome = trained(folder, "reducers_pytorch")
    metrics = last(outcome)
    assert metrics["f1"] > 0.9
    assert metrics["auc"] > 0.95
    assert {"precision", "recall", "f1"} <= set(outcome.training[-1][1])
    assert "auc" not in outcome.training[-1][1]
