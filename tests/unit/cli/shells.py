"""A shell for tests: runs command lines as `detbuild` and `det` do, with a home and an engine of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.cli.__main__ import run
from detbuild.cli.commands import detbuild
from detbuild.cli.det import det
from detbuild.cli.session import Session
from detbuild.store import journal
from detbuild.store.folder import ExperimentFolder, Header
from detbuild.store.home import Home
from determined._records import Checkpoint, Line, Record, Training, Validation, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.fakes import FakeEngine

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
        session = Session(home=self.home, environ=self.environ, connect=lambda: self.engine)
        code = run(group, name, argv, session)
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
