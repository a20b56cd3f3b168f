"""`torch_batch_process`: each record once, by one process and by several, through interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import Checkpoint, Measured, Progress, Restored, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo
from determined.pytorch import MetricReducer
from determined.pytorch.experimental import (
    TorchBatchProcessor,
    TorchBatchProcessorContext,
    torch_batch_process,
)

DATA = TensorDataset(torch.arange(11))
Start = Callable[..., RunInfo]


class Mean(MetricReducer):
    def __init__(self) -> None:
        self.kinds = {"of any kind"}
        self.reset()

    def reset(self) -> None:
        self.values: list[float] = []

    def per_slot_reduce(self) -> list[float]:
        return self.values

    def cross_slot_reduce(self, per_slot_metrics: list[Any]) -> float:
        everything = list(chain.from_iterable(per_slot_metrics))
        return float(sum(everything) / len(everything))


class Processor(TorchBatchProcessor):
    """Writes what it has seen at each checkpoint, as the guide has it."""

    stop_after: int | None = None

    def __init__(self, context: TorchBatchProcessorContext) -> None:
        self.context = context
        self.model = context.prepare_model_for_inference(torch.nn.Dropout(0.9))
        self.mean = context.wrap_reducer(Mean(), name="mean")
        self.total = context.wrap_reducer(sum, name="total", group="sums")
        self.seen: list[tuple[int, list[int]]] = []

    def process_batch(self, batch: Any, batch_idx: int) -> None:
        (records,) = self.context.to_device(batch)
        self.seen.append((batch_idx, self.model(records).tolist()))
        self.mean.values += records.tolist()  # type: ignore[attr-defined]
        self.total.update(int(records.sum()))  # type: ignore[attr-defined]
        if self.stop_after == batch_idx + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_checkpoint_start(self) -> None:
        if self.seen:
            with self.context.upload_path() as path:
                name = f"{self.context.get_distributed_rank()}-{self.seen[-1][0]}.json"
                (path / name).write_text(json.dumps(self.seen))
        self.seen = []

    def on_finish(self) -> None:
        with self.context.upload_path() as path:
            (path / "ends").mkdir()
            ends = path / "ends" / str(self.context.get_distributed_rank())
            ends.write_text(f"done by {self.context.get_distributed_size()}")


class Stopped(Processor):
    stop_after = 2


Stopped.__qualname__ = Processor.__qualname__  # the same job, in an interrupted run


@pytest.fixture
def started(make_run: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    def start(**changes: object) -> RunInfo:
        info = make_run(entrypoint="python3 process.py", **changes)
        monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
        return info

    return start


def records(info: RunInfo) -> list[Any]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def output(info: RunInfo) -> dict[str, str]:
    root = Path(info.checkpoint_dir) / "batch-output" / str(info.trial_id)
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def batches(info: RunInfo) -> list[Any]:
    written = [json.loads(text) for name, text in output(info).items() if name.endswith(".json")]
    return sorted(batch for file in written for batch in file)


WHOLE = [[0, [0, 1, 2]], [1, [3, 4, 5]], [2, [6, 7, 8]], [3, [9, 10]]]


def test_each_batch_is_processed_once_and_reducers_see_all_of_them(started: Start) -> None:
    info = started()
    torch_batch_process(Processor, DATA, batch_size=3, checkpoint_interval=3)
    assert batches(info) == WHOLE
    assert output(info)["ends/0"] == "done by 1"
    said = records(info)
    assert [r.steps_completed for r in said if isinstance(r, Checkpoint)] == [3, 4]
    assert [r for r in said if not isinstance(r, Checkpoint)] == [
        Progress(0.75),
        Measured("inference", 4, {"mean": 5.0}),
        Measured("sums", 4, {"total": 55}),
        Progress(1.0),
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_batches": 2, "batch_size": 3}, WHOLE[:2]),
        ({"dataloader_kwargs": {"batch_size": 3, "drop_last": True}}, WHOLE[:3]),
        ({"max_batches": 1}, [[0, [0]]]),
    ],
)
def test_fewer_batches_and_the_loaders_own_options(
    started: Start, arguments: dict[str, Any], expected: list[Any]
) -> None:
    info = started()
    torch_batch_process(Processor, DATA, **arguments)
    assert batches(info) == expected


def test_a_test_is_one_batch(started: Start) -> None:
    info = started(test_mode=True)
    torch_batch_process(Processor, DATA, batch_size=3)
    assert batches(info) == WHOLE[:1]


def test_an_interrupted_job_goes_on_after_its_last_batch_with_what_its_reducers_had(
    started: Start, tmp_path: Path
) -> None:
    info = started()
    torch_batch_process(Stopped, DATA, batch_size=3, checkpoint_interval=100)
    assert batches(info) == WHOLE[:2]
    (stored,) = (r for r in records(info) if isinstance(r, Checkpoint))
    again = replace(info, run=1, run_dir=str(tmp_path / "again"), checkpoints=(stored.uuid,))
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again")
    os.environ[RUN_DIR_VARIABLE] = again.run_dir
    torch_batch_process(Processor, DATA, batch_size=3, checkpoint_interval=100)
    assert batches(info) == WHOLE
    said = records(again)
    assert said[0] == Restored(stored.uuid, 2)
    assert Measured("inference", 4, {"mean": 5.0}) in said
    assert Measured("sums", 4, {"total": 55}) in said


def test_all_that_a_checkpoint_holds_is_loaded_safely(started: Start) -> None:
    info = started()
    torch_batch_process(Processor, DATA, batch_size=3)
    (stored,) = (r for r in records(info) if isinstance(r, Checkpoint))
    states = torch.load(Path(info.checkpoint_dir) / stored.uuid / "reducers-0.pth", weights_only=True)
    assert (states[0]["values"], states[1]) == (list(range(11)), {"_values": [3, 12, 21, 19]})


def test_a_job_of_other_processes_is_not_taken_up(started: Start) -> None:
    info = started()
    torch_batch_process(Processor, DATA)
    (*_, last) = (r for r in records(info) if isinstance(r, Checkpoint))
    metadata = Path(info.checkpoint_dir) / last.uuid / "metadata.json"
    first = metadata.read_text()
    metadata.write_text(first.replace('"processes": 1', '"processes": 2'))
    manifest = metadata.with_name("manifest.json")
    seal = json.loads(manifest.read_text())
    seal["files"]["metadata.json"]["sha256"] = hashlib.sha256(metadata.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(seal))
    started(checkpoints=(last.uuid,))
    with pytest.raises(CheckpointError, match="started with 2 processes, but now has 1"):
        torch_batch_process(Processor, DATA)


class Endless(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"batch_processor_cls": Mean}, "not a subclass of TorchBatchProcessor"),
        ({"dataset": Endless()}, "cannot shard a Endless"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_batches": 1.5}, "max_batches=1.5"),
        ({"checkpoint_interval": 0}, "checkpoint_interval=0"),
        ({"batch_size": 2, "dataloader_kwargs": {"batch_size": 2}}, "given twice"),
        ({"dataloader_kwargs": {"shuffle": True}}, "dataloader_kwargs has the unsupported key shuffle"),
        ({"dataloader_kwargs": {"sampler": range(3)}}, "dataloader_kwargs has the unsupported key sampler"),
    ],
)
def test_what_cannot_be_worked_with_is_refused_by_name(
    started: Start, arguments: dict[str, Any], cause: str
) -> None:
    started()
    with pytest.raises(InvalidTrialError, match=cause) as caught:
        torch_batch_process(**{"batch_processor_cls": Processor, "dataset": DATA, **arguments})
    assert caught.value.hint


SCRIPT = """
from tests.unit.harness.pytorch.experimental.test_batch_process import DATA, Processor
from determined.pytorch.experimental import torch_batch_process

torch_batch_process(Processor, DATA, batch_size=2, checkpoint_interval=2)
"""


def test_two_processes_share_the_batches_and_reduce_over_both(started: Start, tmp_path: Path) -> None:
    info = started(slots=2)
    (tmp_path / "process.py").write_text(SCRIPT)
    command = ["-m", "determined.launch.torch_distributed", sys.executable, str(tmp_path / "process.py")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *command], env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    own = {
        rank: sorted(
            b for name, text in output(info).items() if name.startswith(f"{rank}-") for b in json.loads(text)
        )
        for rank in (0, 1)
    }
    assert own == {
        0: [[0, [0, 1]], [1, [4, 5]], [2, [8, 9]]],
        1: [[0, [2, 3]], [1, [6, 7]], [2, [10]]],
    }
    assert Measured("inference", 3, {"mean": 5.0}) in records(info)
    assert Measured("sums", 3, {"total": 55}) in records(info)
