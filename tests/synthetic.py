"""Experiment folders of any number of trials, as a search would have left them, for whatever reads them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from detbuild.store import journal
from detbuild.store.experiment_dir import ExperimentFolder, Header
from detbuild.store.home import Home
from determined._contract.records import Line, Record, Training, Validation, encode

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>\u2028\u202egnp\x1b[2J'
CONFIG = {
    "name": "mnist",
    "entrypoint": "model_def:T",
    "records_per_epoch": 6400,
    "hyperparameters": {
        "lr": {"type": "log", "base": 10, "minval": -4, "maxval": -1},
        "layers": {"type": "int", "minval": 2, "maxval": 8},
        "dropout": {"type": "double", "minval": 0, "maxval": 0.6},
        "global_batch_size": {"type": "const", "val": 64},
        "optimizer": {"name": {"type": "categorical", "vals": ["adam", "sgd", "rmsprop", "adamw"]}},
    },
    "searcher": {
        "name": "random",
        "metric": "validation_loss",
        "smaller_is_better": True,
        "max_trials": 50,
        "max_length": {"batches": 200},
    },
    "environment": {"registry_auth": {"password": "hunter2hunter2"}},
}
WRITTEN = "name: mnist\nentrypoint: model_def:T\nenvironment: {registry_auth: {password: hunter2hunter2}}\n"


def experiment(home: Path, trials: int, *, points: int = 20, name: str = "mnist_search") -> ExperimentFolder:
    """All trials but the last two are completed; the last but one failed, the last one runs."""
    folder = Home.open(home).new_experiment()
    header = Header(
        id=folder.id,
        name=name,
        context_name="mnist",
        created=1_700_000_000.0,
        tag="detbuild:0123456789ab",
        metric="validation_loss",
        host="gpu-box",
    )
    files = {"config.json": json.dumps(CONFIG).encode(), "config.yaml": WRITTEN.encode()}
    folder.write(header, {**files, "Dockerfile": b"FROM python:3.11-slim\nCOPY context .\n"})
    entries = [
        journal.Entry(1.7e9 + number + at, fact)
        for number in range(1, trials + 1)
        for at, fact in enumerate(_facts(number, trials, name))
    ]
    folder.journal_file.write_bytes(b"".join(journal.encode(entry) for entry in entries))
    for number in range(1, trials + 1):
        _records(folder, number, points, hparams(number))
    return folder


def hparams(number: int, name: str = "") -> dict[str, object]:
    chance = random.Random(number)
    return {
        "lr": 10 ** chance.uniform(-4, -1),
        "layers": chance.randint(2, 8),
        "dropout": round(chance.uniform(0, 0.6), 3),
        "global_batch_size": 64,
        "optimizer": {"name": chance.choice(["adam", "sgd", "rmsprop", name or "adamw"])},
    }


def _facts(number: int, trials: int, name: str) -> list[journal.Fact]:
    drawn = hparams(number, name if "<" in name else "")
    facts: list[journal.Fact] = [
        journal.TrialCreated(trial_id=number, seed=number, hparams=drawn),
        journal.RunIntended(trial_id=number, run=0),
        journal.RunCreated(trial_id=number, run=0, container=f"c{number}", gpu_ids=(str(number % 8),)),
    ]
    if trials > 1 and number == trials:
        return facts
    failed = trials > 2 and number == trials - 1
    outcome = "user_error" if failed else "completed"
    why = f"RuntimeError: CUDA out of memory {name}" if failed else ""
    facts.append(
        journal.RunFinished(
            trial_id=number,
            run=0,
            outcome=outcome,
            exit_code=int(failed),
            message=why,
            hint="a smaller batch" if failed else "",
        )
    )
    facts.append(journal.TrialFinished(trial_id=number, state="ERROR" if failed else "COMPLETED", why=why))
    return facts


def _records(folder: ExperimentFolder, number: int, points: int, drawn: dict[str, object]) -> None:
    run = folder.run(number, 0)
    run.path.mkdir(parents=True)
    chance, rate, layers = random.Random(number), float(str(drawn["lr"])), int(str(drawn["layers"]))
    floor = 0.05 + 0.12 * abs(math.log10(rate) + 2.3) + 0.02 * abs(layers - 5)
    records: list[Record] = []
    for point in range(1, points + 1):
        loss = floor + 2.2 * math.exp(-4 * point / points) * (1 + 0.08 * chance.gauss(0, 1))
        records.append(Training(point * 10, {"loss": loss}))
        if point % max(1, points // 10) == 0:
            records.append(
                Validation(point * 10, {"validation_loss": loss * 1.1, "accuracy": 1 / (1 + loss)})
            )
    lines = [encode(Line(i, run.name, 1.7e9 + number + 2 * i, record)) for i, record in enumerate(records, 1)]
    run.events.write_bytes(b"".join(lines))
    run.output("stdout").write_bytes(f"epoch 1\n\x1b[31mred\x1b[0m {HOSTILE}\n".encode())
    run.output("stderr").write_bytes(b"warning: \xff hunter2hunter2\n")
