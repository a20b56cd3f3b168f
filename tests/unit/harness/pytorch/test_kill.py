"""Processes that are killed with SIGKILL at any batch, and go on to the end that the others reach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, sys
from pathlib import Path

import torch

from determined._contract.records import Checkpoint, decode
from determined._contract.run_info import Length
from tests.unit.harness.pytorch.driving import Folder
from tests.unit.harness.pytorch.test_resume import Log, Logged

torch.set_num_threads(1)
OPTIONS = {"shuffle": True, "dropout": 0.5, "noise": True, "frequency": 2}
CONFIG = {
    "optimizations": {"aggregation_frequency": 2},
    "min_validation_period": {"batches": 4},
    "min_checkpoint_period": {"batches": 3},
    "checkpoint_policy": "none",
    "scheduling_unit": 2,
}


def stored(path):
    lines = [line for run in sorted(path.glob("run-*/events.jsonl")) for line in run.open("rb")]
    return [decode(line).record.uuid for line in lines if b'"kind":"checkpoint"' in line]


def run(path, kill_at):
    class Trial(Logged):
        log, folder, options = Log([], []), None, OPTIONS

        def train_batch(self, batch, epoch_idx, batch_idx):
            if batch_idx == kill_at:
                os.kill(os.getpid(), 9)
            return super().train_batch(batch, epoch_idx, batch_idx)

    folder = Folder.again(path)
    newest_first = tuple(stored(path)[::-1])
    folder.drive(Trial, config=CONFIG, max_length=Length("batches", 13), checkpoints=newest_first)
    state = folder.state(stored(path)[-1])
    return str([state["models_state_dict"], state["optimizers_state_dict"], state["rng_state"]])


def killed(path, kill_at):
    child = os.fork()
    if not child:
        run(path, kill_at)
        os._exit(0)
    return os.waitpid(child, 0)[1]


root = Path(sys.argv[1])
ends, signals = [], []
for number, cuts in enumerate(((), (2,), (5, 8), (4, 7, 12), (0, 11))):
    path = root / str(number)
    path.mkdir()
    (path / "context").mkdir()
    signals += [killed(path, cut) for cut in cuts]
    ends.append(run(path, None))
print(json.dumps({"signals": signals, "equal": [end == ends[0] for end in ends]}))
"""


def test_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[4],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {"signals": [9] * 8, "equal": [True] * 5}
