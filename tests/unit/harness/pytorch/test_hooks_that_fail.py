"""An error in any method or hook ends the run with one message that names it; InvalidHP ends it well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from determined._contract.records import Checkpoint, Ended, ExitReason, decode
from determined._contract.run_info import ExitCode, Length, RunInfo
from determined._trial.load import close_context
from determined.exec.worker import run_trial
from determined.pytorch import PyTorchCallback

HOOKS = [name for name in vars(PyTorchCallback) if name.startswith("on_")]
OLD = ["on_train_step_start", "on_train_step_end", "on_validation_step_start", "on_validation_step_end"]
RESTORING = ["on_checkpoint_load_start", "load_state_dict"]
METHODS = [
    "__init__",
    "build_callbacks",
    "build_training_data_loader",
    "build_validation_data_loader",
    "get_batch_length",
    "train_batch",
    "evaluate_batch",
    "evaluation_reducer",
]
MODEL_DEF = """
import determined as det
from torch import nn, ones, optim
from determined import pytorch

def failing(owner, context):
    where = context.get_hparam("where")
    kind = det.InvalidHP if context.get_hparam("invalid") else ZeroDivisionError
    if not hasattr(owner, where) or where == "__init__":
        return owner
    def fails(*args, **keywords):
        raise kind("it went wrong here")
    setattr(owner, where, fails)
    return owner

class Hooks(pytorch.PyTorchCallback):
    pass

class Trial(pytorch.PyTorchTrial):
    def __init__(self, context):
        if context.get_hparam("where") == "__init__":
            kind = det.InvalidHP if context.get_hparam("invalid") else ZeroDivisionError
            raise kind("it went wrong here")
        self.context = context
        self.model = context.wrap_model(nn.Linear(2, 1))
        self.optimizer = context.wrap_optimizer(optim.SGD(self.model.parameters(), lr=0.1))
        failing(self, context)

    def build_callbacks(self):
        return {"hooks": failing(Hooks(), self.context)}

    def build_training_data_loader(self):
        return pytorch.DataLoader(ones(8, 2), batch_size=2)

    def build_validation_data_loader(self):
        return pytorch.DataLoader(ones(8, 2), batch_size=2)

    def train_batch(self, batch, epoch_idx, batch_idx):
        loss = self.model(batch).mean()
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return loss

    def evaluate_batch(self, batch, batch_idx):
        return {"loss": self.model(batch).mean()}
"""


def run(make_run: Callable[..., RunInfo], where: str, *, invalid: bool) -> tuple[Any, list[Any], RunInfo]:
    """Run such a trial; where it fails while it is restored, after another run that does not."""
    info = make_run(
        entrypoint="model_def:Trial",
        hparams={"where": where, "invalid": invalid},
        max_length=Length("batches", 6),
        config={"min_validation_period": {"batches": 2}, "min_checkpoint_period": {"batches": 3}},
    )
    (Path(info.context_dir) / "model_def.py").write_text(MODEL_DEF)
    if where in RESTORING:
        run_trial(
            replace(info, hparams={"where": "nowhere", "invalid": False}, max_length=Length("batches", 4))
        )
        saved = [record.uuid for record in records_of(info) if isinstance(record, Checkpoint)]
        info = replace(info, run=1, checkpoints=tuple(saved[::-1]))
    outcome = run_trial(info)
    return outcome, records_of(info), info


def records_of(info: RunInfo) -> list[Any]:
    lines = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
    return [decode(line).record for line in lines]


@pytest.fixture(autouse=True)
def _no_context_is_left_open() -> Iterator[None]:
    yield
    close_context()


@pytest.mark.parametrize("where", [*METHODS, *HOOKS, *OLD, "state_dict", "load_state_dict"])
def test_an_exception_is_told_with_its_place_and_is_an_error(
    make_run: Callable[..., RunInfo], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, records, _ = run(make_run, where, invalid=False)
    ended = records[-1]
    assert isinstance(ended, Ended)
    if where in {"evaluate_batch", "evaluation_reducer"}:  # found before training, and not tried again
        assert (ended.reason, outcome.exit_code) == (ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE)
        assert ended.message.startswith("preflight validation failed: model_def.py:")
    else:
        assert (ended.reason, outcome.exit_code) == (ExitReason.ERROR, ExitCode.USER_ERROR)
        assert ended.message.startswith("ZeroDivisionError: it went wrong here (model_def.py:")
    said = capsys.readouterr().err
    assert said.count("error in stage") == 1
    assert "model_def.py" in said


@pytest.mark.parametrize("where", [*METHODS, *HOOKS, *OLD, "state_dict", "load_state_dict"])
def test_invalid_hyperparameters_are_no_failure_wherever_it_is_said(
    make_run: Callable[..., RunInfo], where: str
) -> None:
    outcome, records, info = run(make_run, where, invalid=True)
    assert (records[-1].reason, outcome.exit_code) == (ExitReason.INVALID_HP, ExitCode.DONE)
    assert "it went wrong here" in records[-1].message
    for record in records:
        if isinstance(record, Checkpoint):
            manifest = Path(info.checkpoint_dir) / record.uuid / "manifest.json"
            assert json.loads(manifest.read_text())
