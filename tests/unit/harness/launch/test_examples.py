"""The examples of this part, each as its own config starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from determined._contract.records import (
    Checkpoint,
    Ended,
    ExitReason,
    Record,
    Restored,
    Training,
    Validation,
    decode,
)
from determined._contract.run_info import ENTRY, RUN_DIR_VARIABLE, Length, RunInfo

EXAMPLES = Path(__file__).parents[4] / "examples"


def run(name: str, tmp_path: Path, **changes: Any) -> list[Record]:
    """One run of the example, as the supervisor of a container would make it."""
    config = yaml.safe_load((EXAMPLES / name / "const.yaml").read_text())
    lengths = [Length(*each) for each in config["searcher"].get("max_length", {}).items()]
    run_dir = tmp_path / f"run-{changes.get('run', 0)}"
    run_dir.mkdir()
    values: dict[str, Any] = {
        "experiment_id": 1,
        "trial_id": 1,
        "run": 0,
        "trial_seed": 3,
        "slots": config["resources"]["slots_per_trial"],
        "entrypoint": config["entrypoint"],
        "run_dir": str(run_dir),
        "context_dir": str(EXAMPLES / name),
        "context_name": name,
        "checkpoint_dir": str(tmp_path / "checkpoints"),
        "max_length": lengths[0] if lengths else None,
        "hparams": config.get("hyperparameters", {}),
        "config": config,
    }
    RunInfo(**{**values, **changes}).save(run_dir)
    program = Path(sys.executable).parent
    environ = {**os.environ, RUN_DIR_VARIABLE: str(run_dir), "PATH": f"{program}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, ENTRY], env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [decode(line).record for line in (run_dir / "events.jsonl").read_bytes().splitlines()]


def of(records: list[Record], kind: type) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def test_several_processes_learn_nine_digits_in_ten(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    records = run("distributed_pytorch", tmp_path)
    last = of(records, Validation)[-1].metrics
    assert last["accuracy"] > 0.85
    assert (last["images"], last["epochs"]) == (297, 8)
    assert of(records, Ended) == [Ended(ExitReason.COMPLETED)]
    said = (tmp_path / "run-0" / "stdout.log").read_text()
    assert said == "[rank=0] 1797 images, 2 processes\n"


def test_batch_inference_sees_each_image_once_and_writes_what_it_found(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    records = run("batch_inference_pytorch", tmp_path)
    assert of(records, Validation) == [Validation(15, {"accuracy": pytest.approx(785 / 897), "images": 897})]
    written = (tmp_path / "checkpoints" / "batch-output" / "1").glob("process-0-batch-*.json")
    assert sum(len(json.loads(file.read_text())) for file in written) == 897


def test_the_core_api_script_finds_the_line_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = run("core_api", tmp_path, max_length=Length("batches", 100))
    (stored,) = of(first, Checkpoint)
    second = run("core_api", tmp_path, run=1, checkpoints=(stored.uuid,))
    assert of(second, Restored) == [Restored(stored.uuid, 100)]
    assert [record.steps_completed for record in of(second, Training)] == [120, 140, 160, 180, 200]
    (found,) = of(second, Validation)
    assert found.metrics["slope"] == pytest.approx(3, abs=0.3)
    assert found.metrics["offset"] == pytest.approx(1, abs=0.3)
