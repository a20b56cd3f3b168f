"""Train the cases of `trials.py` under Determined 0.38.1 and write what it reported, every digit.

Runs in an environment with `determined==0.38.1`, never with detbuild's harness:

    python tests/peer/record.py OUT.json [--check GOLDENS.json] [--seeds FIRST LAST]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import determined
from determined import pytorch

sys.path.insert(0, str(Path(__file__).parent))

import trials


def recorded(case: trials.Case) -> list[Any]:
    """What Determined reports: [kind, batches, metrics] each."""
    found: list[Any] = []
    random.seed(trials.SEED)
    np.random.seed(trials.SEED)  # noqa: NPY002
    torch.manual_seed(trials.SEED)
    options = {"aggregation_frequency": case["aggregation"], "enable_tensorboard_logging": False}
    with pytorch.init(hparams={}, exp_conf={}, **options) as context:
        train = context._core.train
        train.report_training_metrics = lambda steps_completed, metrics, batch_metrics=None: found.append(
            ["training", steps_completed, plain(metrics)]
        )
        train.report_validation_metrics = lambda steps_completed, metrics: found.append(
            ["validation", steps_completed, plain(metrics)]
        )
        trial = trials.trial_class(case, old_dialect=False)(context)
        pytorch.Trainer(trial, context).fit(
            max_length=pytorch.Batch(case["batches"]),
            validation_period=pytorch.Batch(case["validate"]) if case["validate"] else None,
            checkpoint_period=pytorch.Batch(case["checkpoint"]) if case["checkpoint"] else None,
            reporting_period=pytorch.Batch(case["report"]),
            checkpoint_policy="all",
            step_zero_validation=case["initial"],
        )
    return found


def plain(value: Any) -> Any:
    """As JSON has it; numbers keep every digit."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--check", type=Path, help="fail if these goldens differ from what is recorded now")
    parser.add_argument("--seeds", type=int, nargs=2, help="record random cases of these seeds instead")
    arguments = parser.parse_args()
    if determined.__version__ != "0.38.1":
        sys.exit(f"this is determined {determined.__version__}, not 0.38.1")
    seeds = range(*arguments.seeds) if arguments.seeds else ()
    cases = {f"seed {seed}": trials.random_case(seed) for seed in seeds} or trials.NAMED
    out = arguments.out.absolute()
    goldens = json.loads(arguments.check.read_text(encoding="utf-8")) if arguments.check else None
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    # The same digits on every processor, as in tests/conftest.py; read by the first operation
    os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE")
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as work:
        os.environ["HOME"] = os.environ["XDG_DATA_HOME"] = data  # its checkpoints go there
        os.chdir(work)  # and copy all that is here
        found = {name: recorded(case) for name, case in cases.items()}
        os.chdir(out.parent)
    out.write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    differing = [name for name in found if goldens is not None and goldens.get(name) != found[name]]
    told = f"{len(found)} trials under Determined {determined.__version__}, torch {torch.__version__}"
    sys.stdout.write(f"{told}: {len(differing)} differ from the goldens\n" if goldens else f"{told}\n")
    if differing:
        sys.stderr.write(f"differing from {arguments.check}: {', '.join(differing)}\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
