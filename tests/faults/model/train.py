"""A trial without a framework, as a script: every value depends on all before; checkpoints are real."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.errors import StorageError
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    ExitReason,
    Restored,
    Training,
    Validation,
)
from determined._contract.run_info import EVENTS_FILE, RUN_DIR_VARIABLE, RunInfo
from determined._run.events import EventFile

info = RunInfo.load(Path(os.environ[RUN_DIR_VARIABLE]))
storage = Path(info.checkpoint_dir)
batches, pace, ballast, hold = (info.hparams[name] for name in ("batches", "pace", "ballast", "hold"))
if info.max_length and info.hparams.get("in_segments"):
    batches = info.max_length.count
stop_asked = []
signal.signal(signal.SIGTERM, lambda *_: stop_asked.append(True))


def restore(events: EventFile) -> tuple[int, float]:
    if not info.checkpoints:
        return 0, 1.0
    uuid, rejected = contract_checkpoints.first_whole(storage, info.checkpoints)
    for name, why in rejected.items():
        events.append(CheckpointRejected(name, why))
    state = json.loads((storage / uuid / "state.json").read_text())
    events.append(Restored(uuid, state["batch"]))
    return state["batch"], state["loss"]


def save(events: EventFile, batch: int, loss: float) -> None:
    with contract_checkpoints.store(storage, {"steps_completed": batch}) as (directory, uuid):
        (directory / "state.json").write_text(json.dumps({"batch": batch, "loss": loss}))
        (directory / "ballast").write_bytes(bytes(ballast))
    events.append(Checkpoint(uuid, batch, contract_checkpoints.resources(storage / uuid)))


def train(events: EventFile) -> ExitReason:
    batch, loss = restore(events)
    while batch < batches:
        batch += 1
        loss = loss * 0.9 + 1 / (batch + loss)
        events.append(Training(batch, {"loss": loss}))
        if batch % 5 == 0:
            events.append(Validation(batch, {"accuracy": 1 / (1 + loss)}))
            save(events, batch, loss)
        while batch == hold and not (stop_asked or (storage / "go").exists()):
            time.sleep(0.01)
        if stop_asked:
            save(events, batch, loss)
            return ExitReason.PREEMPTED
        sys.stdout.write(f"batch {batch}\n")
        sys.stdout.flush()
        hog = Path(info.context_dir) / "hog"
        if hog.exists() and not info.run:
            hoard = [bytearray(os.urandom(1 << 20)) for _ in range(512)]
            sys.stdout.write(f"{len(hoard)} MiB\n")
        time.sleep(pace)
    return ExitReason.COMPLETED


contract_checkpoints.prepare(storage)
with closing(EventFile(Path(info.run_dir) / EVENTS_FILE, info.name)) as events:
    try:
        events.append(Ended(train(events)))
    except StorageError as error:
        events.append(Ended(ExitReason.ERROR, message=str(error), hint=error.hint))
        sys.exit(74)
