"""A trial without a framework, whose every value depends on all before, and a home to run it in."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.parse import config_from_mapping
from detbuild.config.rewrite import completed
from detbuild.controller.context import ControllerContext
from detbuild.controller.loop import Controller
from detbuild.controller.state import JournaledState, apply_pending_requests
from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.slot_queue import Limits, SlotQueue
from detbuild.search.registry import search_method
from detbuild.store.experiment_dir import ExperimentFolder, Header, config_of, search_config_of
from detbuild.store.home import Home
from detbuild.store.records import RecordFile
from detbuild.store.state import ExperimentState, TrialState, limits, load, run_records
from determined._contract import checkpoints as contract_checkpoints
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    ExitReason,
    Restored,
    Started,
    Training,
    Validation,
)
from determined._contract.run_info import ExitCode, RunInfo
from determined._run.events import EventFile, begin
from tests.fakes import INFO, Effects, Exit, FakeEngine, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import Engine
    from detbuild.runtime.protocol import Runtime
    from detbuild.search.method import SearchMethod
    from detbuild.store import journal

BATCHES = 6
IMAGE_TAG = "detbuild:training"


def trajectory(folder: ExperimentFolder, trial: TrialState) -> list[Training | Validation]:
    """Every training and validation metric of a trial that no later run superseded, in order."""
    found: list[Training | Validation] = []
    for run, limit in zip(trial.runs, limits(run_records(folder, trial)), strict=True):
        run_folder = folder.run(trial.id, run.run)
        lines = RecordFile(run_folder).rest()
        metrics = [line.record for line in lines if isinstance(line.record, (Training, Validation))]
        found += [metric for metric in metrics if metric.steps_completed <= limit]
    return found


def loss_after(batch: int, start: float = 1.0) -> float:
    loss = start
    for number in range(1, batch + 1):
        loss = loss * 0.9 + 1 / (number + loss)
    return loss


def expected(batches: int = BATCHES, start: float = 1.0) -> list[Training | Validation]:
    """What an undisturbed trial reports."""
    reports: list[Training | Validation] = []
    for batch in range(1, batches + 1):
        reports.append(Training(batch, {"loss": loss_after(batch, start)}))
        if batch % 2 == 0:
            reports.append(Validation(batch, {"accuracy": 1 / (1 + loss_after(batch, start))}))
    return reports


def train(process: Process) -> Generator[None, None, Exit]:
    """The program of the container: what harness and user code do together, one batch for each look at it."""
    info = RunInfo.load(process.run_dir)
    if not begin(process.run_dir / "events.jsonl"):  # as the supervisor does
        return Exit(ExitCode.STARTED_AGAIN)
    checkpoints = host_path(process, info.checkpoint_dir)
    contract_checkpoints.prepare(checkpoints)
    with closing(EventFile(process.run_dir / "events.jsonl", info.name)) as events:
        events.append(Started(1, "3.11", "0"))
        batch, loss = restore(info, checkpoints, events)
        yield
        while batch < (info.max_length.count if info.max_length else BATCHES):
            batch += 1
            loss = loss * 0.9 + 1 / (batch + loss)
            events.append(Training(batch, {"loss": loss}))
            if batch % 2 == 0:
                events.append(Validation(batch, {"accuracy": 1 / (1 + loss)}))
                save(checkpoints, events, batch, loss)
            yield
            if "SIGTERM" in process.signals:
                save(checkpoints, events, batch, loss)
                events.append(Ended(ExitReason.PREEMPTED))
                events.append(Exited(0))
                return Exit(0)
        events.append(Ended(ExitReason.COMPLETED))
        events.append(Exited(0))
    return Exit(0)


def restore(info: RunInfo, checkpoints: Path, events: EventFile) -> tuple[int, float]:
    if not info.checkpoints:
        return 0, float(str(info.hparams.get("start", 1.0)))
    uuid, rejected = contract_checkpoints.first_whole(checkpoints, info.checkpoints)
    for name, why in rejected.items():
        events.append(CheckpointRejected(name, why))
    state = json.loads((checkpoints / uuid / "state.json").read_text())
    batch = 0 if info.warm_start else state["batch"]
    events.append(Restored(uuid, batch))
    return batch, state["loss"]


def save(checkpoints: Path, events: EventFile, batch: int, loss: float) -> None:
    with contract_checkpoints.store(checkpoints, {"steps_completed": batch}) as (directory, uuid):
        (directory / "state.json").write_text(json.dumps({"batch": batch, "loss": loss}))
    events.append(Checkpoint(uuid, batch, contract_checkpoints.resources(checkpoints / uuid)))


def host_path(process: Process, inside: str) -> Path:
    return next(Path(mount.source) for mount in process.spec.mounts if mount.target == inside)


@dataclass
class FakeClock:
    """Time passes only when somebody waits, so a test never does."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds


@dataclass(frozen=True, slots=True)
class CountedFolder(ExperimentFolder):
    """An experiment folder whose every effect is counted, and may be the last thing its controller does."""

    effects: Effects = field(default_factory=Effects)

    def record(self, fact: journal.Fact) -> journal.Entry:
        with self.effects(f"journal {fact.kind}"):
            return ExperimentFolder.record(self, fact)

    def prepare_run(self, info: RunInfo) -> None:
        with self.effects(f"prepare run {info.name}"):
            ExperimentFolder.prepare_run(self, info)


CONFIG: Mapping[str, object] = {
    "name": "training",
    "entrypoint": "model_def:Trial",
    "searcher": {"name": "single", "metric": "accuracy", "smaller_is_better": False, "max_length": 6},
    "resources": {"slots_per_trial": 0},
    "reproducibility": {"experiment_seed": 7},
    "hyperparameters": {"lr": {"type": "double", "minval": 0, "maxval": 1}},
}


def submit(home: Home, image: str, changes: Mapping[str, object] | None = None) -> ExperimentFolder:
    """What `detbuild create` leaves behind for a controller."""
    config = completed(config_from_mapping({**CONFIG, **(changes or {})}), seed=7)
    folder = home.new_experiment()
    header = Header(
        id=folder.id,
        name=config.name or "",
        context_name="context",
        created=0.0,
        image=image,
        tag=IMAGE_TAG,
        engine=INFO.id,
        engine_at="here",
        metric="accuracy",
        smaller_is_better=False,
        user="0:0",
    )
    folder.write(header, {"config.json": json.dumps(config.resolved()).encode()})
    return folder


@dataclass
class Rig:
    """One experiment on one engine, and as many controllers of it, one after the other, as a test likes."""

    home: Home
    engine: Engine
    folder: ExperimentFolder
    effects: Effects = field(default_factory=Effects)
    clock: FakeClock = field(default_factory=FakeClock)
    limits: Limits = field(default_factory=Limits)
    method: Callable[[ExperimentConfig], SearchMethod] = search_method
    runtime_of: Callable[[Rig], Runtime] | None = None  # by default its engine's

    @property
    def slots(self) -> SlotQueue:
        return SlotQueue(self.home.path)

    def controller(self) -> Controller:
        folder = CountedFolder(self.folder.path, self.effects)
        apply_pending_requests(JournaledState(folder=folder))
        context = ControllerContext(
            folder=folder,
            runtime=self.runtime(),
            config=config_of(folder),
            home_id=self.home.id,
            clock=self.clock,
        )
        return Controller(context, self.method(search_config_of(folder)))

    def runtime(self) -> Runtime:
        return self.runtime_of(self) if self.runtime_of else self.docker()

    def docker(self, *, max_workers: int = 1) -> DockerRuntime:
        return DockerRuntime(
            self.engine,
            self.folder.header(),
            self.slots,
            limits=lambda: self.limits,
            max_workers=max_workers,
            nvidia_smi=str,
            now=self.clock.now,
            wait=self.clock.wait,
        )

    def run(self, *, at_most: int = 5000) -> ExperimentState:
        """Drive the experiment to its end with a new controller."""
        controller = self.controller()
        for _ in range(at_most):
            if controller.context.state.idle:
                return self.state()
            controller.step()
            self.clock.wait(0.2)
        raise AssertionError(f"not over after {at_most} looks: {self.state()}")

    def state(self) -> ExperimentState:
        return load(self.folder)

    def reports(self, trial_id: int = 1) -> list[Training | Validation]:
        """The metrics of a trial that no later run superseded."""
        return trajectory(self.folder, self.state().trials[trial_id])


def rig(
    path: Path,
    *,
    engine: FakeEngine | None = None,
    changes: Mapping[str, object] | None = None,
    method: Callable[[ExperimentConfig], SearchMethod] = search_method,
) -> Rig:
    """A home in `path` with one experiment whose image is there."""
    engine = engine if engine is not None else FakeEngine(train)
    home = Home.open(path)
    image = engine.image_id(IMAGE_TAG) or engine.add_image(IMAGE_TAG)
    return Rig(home, engine, submit(home, image, changes), engine.effects, method=method)
