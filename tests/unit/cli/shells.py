"""A shell for tests: runs command lines as `detbuild` and `det` do, with a home and an engine of its own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.api.client import Client
from detbuild.cli.__main__ import run
from detbuild.cli.commands import det, detbuild
from detbuild.cli.output import no_output
from detbuild.store import journal
from detbuild.store.experiment_dir import ExperimentFolder, Header
from detbuild.store.home import Home
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.records import (
    Checkpoint,
    Ended,
    Exited,
    ExitReason,
    Line,
    Record,
    Stage,
    Started,
    Training,
    Validation,
    encode,
)
from determined._contract.run_info import RunInfo
from determined._run.events import EventFile
from tests.fakes import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tests.fakes import FakeEngine, Process

UUID = "0f7c2a54-8f0e-4c5e-9a1c-1f2e3d4c5b6a"
RECORDS: tuple[Record, ...] = (
    Training(10, {"loss": 0.5}),
    Validation(10, {"validation_loss": 0.25, "accuracy": 0.9}),
    Checkpoint(UUID, 10, {"state.pth": 2048}),
)
FINISHED = journal.RunFinished(trial_id=1, run=0, outcome="completed", exit_code=0)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """`shell("detbuild", "list", "--json")`; `engine` and `home` may be looked at and changed."""

    home: Path
    engine: FakeEngine
    environ: dict[str, str]
    read: Callable[[], tuple[bytes, bytes]]

    def __call__(self, *words: str) -> Outcome:
        name, *argv = words
        group = {"detbuild": detbuild, "det": det}[name]
        client = Client(path=self.home, environ=self.environ, connect=lambda: self.engine, emit=no_output)
        code = run(group, name, argv, client)
        return Outcome(code, *(text.decode("utf-8", "surrogateescape") for text in self.read()))

    def experiment(
        self,
        name: str = "mnist",
        *,
        records: Sequence[Record] = RECORDS,
        finished: journal.RunFinished | None = FINISHED,
        state: str = "COMPLETED",
    ) -> ExperimentFolder:
        """Put an experiment of one trial with one run into the home; it goes on when `finished` is None."""
        folder = Home.open(self.home).new_experiment()
        folder.write(
            Header(
                id=folder.id,
                name=name,
                context_name="mnist",
                created=1_700_000_000.0,
                image="sha256:" + "a" * 64,
                tag="detbuild:" + "b" * 64,
                metric="validation_loss",
            ),
            {"config.json": b"{}", "config.yaml": b"entrypoint: model_def:T\n"},
        )
        folder.record(journal.TrialCreated(trial_id=1, seed=7, hparams={"lr": 0.001}))
        folder.record(journal.RunIntended(trial_id=1, run=0))
        folder.record(journal.RunCreated(trial_id=1, run=0, container="c0ffee"))
        run_folder = folder.run(1, 0)
        run_folder.path.mkdir(parents=True)
        lines = [
            encode(Line(seq, run_folder.name, 1.7e9 + seq, record)) for seq, record in enumerate(records, 1)
        ]
        run_folder.events.write_bytes(b"".join(lines))
        run_folder.output("stdout").write_bytes(b"one\ntwo\nthree\n")
        run_folder.output("stderr").write_bytes(b"warn \xff\x1b[31mred\n")
        if finished:
            folder.record(finished)
            folder.record(journal.TrialFinished(trial_id=1, state=state))
            folder.record(journal.ExperimentFinished(state=state))
        return folder


def train(process: Process) -> Exit:
    """The program of a container: one batch, one validation, one checkpoint, some output."""
    run_dir = process.run_dir
    info = RunInfo.load(run_dir)
    checkpoints = next(Path(m.source) for m in process.spec.mounts if m.target == info.checkpoint_dir)
    (run_dir / "stdout.log").write_bytes(b"hello from the trial\n")
    with closing(EventFile(run_dir / "events.jsonl", info.name)) as events:
        events.append(Training(1, {"loss": 0.5}))
        events.append(Validation(1, {"validation_loss": 0.25}))
        with contract_checkpoints.store(checkpoints, {"steps_completed": 1}) as (path, uuid):
            (path / "weights").write_bytes(b"123")
        events.append(Checkpoint(uuid, 1, contract_checkpoints.resources(checkpoints / uuid)))
        events.append(Ended(ExitReason.COMPLETED))
        events.append(Exited(0))
    return Exit(0)


def train_until_told(process: Process) -> Generator[None, None, Exit]:
    """Runs until it is told to stop."""
    with closing(EventFile(process.run_dir / "events.jsonl", "1-0")) as events:
        events.append(Started(1, "3.11", "0"))
    while "SIGTERM" not in process.signals:
        yield
    return Exit(143)


def fail(process: Process) -> Exit:
    (process.run_dir / "stderr.log").write_bytes(b"Traceback: it broke\n")
    with closing(EventFile(process.run_dir / "events.jsonl", "1-0")) as events:
        events.append(Ended(ExitReason.NOT_RETRYABLE, Stage.IMPORT, "no module named model_def", "add it"))
    return Exit(2)
