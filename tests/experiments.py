"""Experiments as their files, made without an engine: trials, what they reported, their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from detbuild.api.client import Client
from detbuild.api.experiment import Experiment
from detbuild.events import ignore
from detbuild.store import journal
from detbuild.store.experiment_dir import ExperimentFolder, Header
from detbuild.store.home import Home
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.records import Checkpoint, Record, Training, Validation
from determined._run.events import EventFile
from tests.fakes import FakeEngine


@dataclass(frozen=True)
class Report:
    """What a trial says at one batch: a validation, and a checkpoint with files."""

    batch: int
    loss: float
    accuracy: float = 0.5


def write_experiment(
    home: Path,
    trials: Sequence[Sequence[Report]] = ((Report(10, 0.25),),),
    *,
    state: str | None = "COMPLETED",
    config: dict[str, object] | None = None,
    name: str = "mnist",
    local: bool = False,
) -> ExperimentFolder:
    """One run a trial; it goes on when `state` is None."""
    folder = Home.open(home).new_experiment()
    header = Header(
        id=folder.id,
        name=name,
        context_name="mnist",
        created=1_700_000_000.0 + folder.id,
        image="" if local else "sha256:" + "a" * 64,
        tag="" if local else "detbuild:" + "b" * 64,
        metric="loss",
        user="1:1",
        labels=("first",),
        local=local,
    )
    files = {"config.json": json.dumps(config or {}).encode(), "config.yaml": b"# as written\n"}
    folder.write(header, files)
    for number, reports in enumerate(trials, 1):
        folder.record(journal.TrialCreated(trial_id=number, seed=number, hparams={"lr": 0.1 * number}))
        folder.record(journal.RunIntended(trial_id=number, run=0))
        folder.record(journal.RunCreated(trial_id=number, run=0, container=f"c{number}ffee"))
        _write_run(folder, number, reports)
        if state:
            folder.record(journal.RunFinished(trial_id=number, run=0, outcome="completed", exit_code=0))
            folder.record(journal.TrialFinished(trial_id=number, state=state))
    if state:
        folder.record(journal.ExperimentFinished(state=state))
    return folder


def handle(folder: ExperimentFolder) -> Experiment:
    """The experiment as the commands get it, with warnings left out."""
    return Client(path=folder.path.parents[1], environ={}, connect=FakeEngine, emit=ignore).experiment(
        folder.id
    )


def uuids(folder: ExperimentFolder) -> list[str]:
    """The checkpoints that are in the experiment's own folder."""
    return sorted(path.name for path in folder.checkpoints.iterdir() if path.name[0] != ".")


def _write_run(folder: ExperimentFolder, trial_id: int, reports: Sequence[Report]) -> None:
    run = folder.run(trial_id, 0)
    run.path.mkdir(parents=True)
    run.output("stdout").write_bytes(b"INFO: begun\n[rank=1] WARNING: slow\n[rank=1] because\n")
    run.output("stderr").write_bytes(b"ERROR: broken\n  at line 3\n")
    with closing(EventFile(run.events, run.name)) as events:
        for report in reports:
            for record in _records(folder, report):
                events.append(record)


def _records(folder: ExperimentFolder, report: Report) -> Sequence[Record]:
    metadata = {"steps_completed": report.batch, "framework": "torch-2"}
    with contract_checkpoints.store(folder.checkpoints, metadata) as (path, uuid):
        (path / "weights").write_bytes(b"123")
    files = contract_checkpoints.resources(folder.checkpoints / uuid)
    return (
        Training(report.batch, {"loss": report.loss * 2}),
        Validation(report.batch, {"loss": report.loss, "accuracy": report.accuracy}),
        Checkpoint(uuid, report.batch, files, metadata),
    )
