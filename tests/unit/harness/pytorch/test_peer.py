"""Uninterrupted trials report what Determined 0.38.1 reports, to the last digit; see `tests/peer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from determined._contract.records import Training, Validation
from determined._contract.run_info import Length
from tests.peer import trials
from tests.unit.harness.pytorch.driving import Folder

if TYPE_CHECKING:
    from determined.pytorch import PyTorchTrial
    from tests.unit.harness.pytorch.driving import Outcome

GOLDENS = json.loads((Path(trials.__file__).parent / "goldens.json").read_text(encoding="utf-8"))


def driven(folder: Folder, trial: type[PyTorchTrial], case: trials.Case, **fields: Any) -> Outcome:
    """Run the trial of a case as its description says."""
    config = {
        "scheduling_unit": case["report"],
        "min_validation_period": {"batches": case["validate"]} if case["validate"] else {},
        "min_checkpoint_period": {"batches": case["checkpoint"]} if case["checkpoint"] else {},
        "perform_initial_validation": case["initial"],
        "checkpoint_policy": "all",
        "optimizations": {"aggregation_frequency": case["aggregation"]},
    }
    return folder.drive(
        trial,
        config={key: value for key, value in config.items() if value != {}},
        trial_seed=trials.SEED,
        max_length=Length("batches", case["batches"]),
        **fields,
    )


def reported(folder: Folder, case: trials.Case) -> list[Any]:
    """What the trial of a case reports here, in the form of the goldens."""
    outcome = driven(folder, trials.trial_class(case, old_dialect=True), case)
    kinds = {Training: "training", Validation: "validation"}
    return [
        [kinds[type(record)], record.steps_completed, dict(record.metrics)]
        for record in outcome.records
        if type(record) in kinds
    ]


@pytest.mark.parametrize("name", GOLDENS)
def test_every_number_is_the_one_that_determined_reports(folder: Folder, name: str) -> None:
    assert reported(folder, trials.NAMED[name]) == GOLDENS[name]


def test_every_named_trial_has_its_numbers() -> None:
    assert list(GOLDENS) == list(trials.NAMED)


def logged(folder: Folder, case: trials.Case, cuts: tuple[int, ...]) -> tuple[list[float], list[Any]]:
    """The loss of every batch, and the validations, of a trial that is stopped and resumed after `cuts`."""
    losses: list[float] = []

    class Logged(trials.trial_class(case, old_dialect=True)):  # type: ignore[misc]
        def training_metrics(self, loss: Any, batch_idx: int) -> Any:
            losses.append(loss.item())
            if batch_idx + 1 in cuts:
                folder.run.ask_to_stop()  # type: ignore[union-attr]
            return super().training_metrics(loss, batch_idx)

    validations: dict[int, Any] = {}
    checkpoints: tuple[str, ...] = ()
    for _ in range(len(cuts) + 1):
        outcome = driven(folder, Logged, case, checkpoints=checkpoints)
        checkpoints = (outcome.newest,)
        validations.update(outcome.validations)
    return losses, sorted(validations.items())


RESUMED = [name for name in trials.NAMED if "workers" in name or "order" in name or "noise" in name]


@pytest.mark.parametrize("name", [*RESUMED, "generator", "augmented", "initial validation", "stream"])
def test_a_resumed_trial_equals_its_own_uninterrupted_run(tmp_path: Path, name: str) -> None:
    case = {**trials.NAMED[name], "callbacks": False}  # on_training_start, which draws, is called again
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole = logged(Folder(tmp_path / "whole"), case, ())
    assert logged(Folder(tmp_path / "cut"), case, (3, case["batches"] // 2 + 1)) == whole
