from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo

torch = pytest.importorskip("torch")


class Recorder:
    """Stands in for torch's SummaryWriter, which needs a package that may be absent."""

    def __init__(self, log_dir: str) -> None:
        self.calls: list[tuple[object, ...]] = [("open", log_dir)]

    def add_scalar(self, *arguments: object) -> None:
        self.calls.append(("scalar", *arguments))

    def flush(self) -> None:
        self.calls.append(("flush",))


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(SummaryWriter=Recorder)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(writer=module))


def calls() -> list[tuple[object, ...]]:
    from determined.tensorboard.metric_writers.pytorch import TorchWriter

    writer = TorchWriter()
    writer.add_scalar("loss", 0.5, 3)
    writer.reset()
    return writer.writer.calls


@pytest.mark.usefixtures("recording")
def test_in_a_run_it_writes_to_the_run_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = RunInfo(
        experiment_id=1,
        trial_id=1,
        run=0,
        trial_seed=0,
        slots=0,
        entrypoint="m:T",
        run_dir=str(tmp_path),
        context_dir="c",
        context_name="c",
        checkpoint_dir="d",
    )
    info.save(tmp_path)
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    assert calls() == [("open", f"{tmp_path}/tensorboard"), ("scalar", "loss", 0.5, 3), ("flush",)]


@pytest.mark.usefixtures("recording")
def test_outside_a_run_it_writes_to_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    assert calls() == [("open", "runs"), ("scalar", "loss", 0.5, 3), ("flush",)]
