"""Runs scenarios in several processes of one start: importing torch costs more than all of them.

    python -m tests.unit.harness.pytorch.several DIRECTORY

Each process has RANK and WORLD_SIZE and writes what its scenarios return to DIRECTORY/<rank>.pt.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from determined._contract.run_info import Length, RunInfo
from determined._run.processes import Alone, SocketGroup
from determined._run.run import ChiefRun, SharedRun
from determined.pytorch import DataLoader, MetricReducer, PyTorchCallback, PyTorchTrial, Reducer
from determined.pytorch._device import inner
from determined.pytorch._trainer import run_trial
from tests.unit.harness.pytorch.driving import Folder, Records

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[4]
PATIENCE = 100  # seconds


def start(directory: Path, size: int, *names: str) -> list[dict[str, Any]]:
    """Run the named scenarios in `size` processes; return each process's results by name."""
    point = f"{directory}/{os.getpid()}"
    environ = {**os.environ, "WORLD_SIZE": str(size), "POINT": point, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.unit.harness.pytorch.several", str(directory), *names]
    ranks = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=PATIENCE)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * size, "\n".join(said)
    return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(size)]


@dataclass(frozen=True)
class Place:
    """A directory that all processes share, and what they have met in."""

    directory: Path
    group: Any

    def info(self, name: str, **fields: Any) -> RunInfo:
        folder = self.directory / name
        if self.group.rank == 0:
            folder.mkdir()
            info = Folder(folder).info(slots=self.group.size, **fields)
        else:
            info = None
        return self.group.broadcast(info)

    def drive(self, trial: type[PyTorchTrial], info: RunInfo) -> Any:
        """Train; in this process `trial.run` is the run."""
        chief = ChiefRun(info) if self.group.rank == 0 else None
        run = chief if self.group.size == 1 else SharedRun(info, self.group, chief)
        trial.chief = chief  # type: ignore[attr-defined]
        reason = run_trial(trial, run)
        if chief:
            chief.close()
        return reason

    def again(self, info: RunInfo, number: int, **fields: Any) -> RunInfo:
        """The next run of the same trial, from its newest checkpoint."""
        newest = max(Path(info.checkpoint_dir).iterdir(), key=lambda path: path.stat().st_mtime_ns).name
        run_dir = Path(f"{info.run_dir}-{number}")
        if self.group.rank == 0:
            run_dir.mkdir()
        self.group.broadcast(None)
        return replace(info, run_dir=str(run_dir), checkpoints=(newest,), **fields)


class Logged(PyTorchTrial):
    """Writes down its batches, losses and weights; `options` change a part."""

    options: ClassVar[dict[str, Any]] = {}
    log: list[Any]
    weights: dict[str, torch.Tensor]
    chief: ChiefRun | None

    def __init__(self, context: Any) -> None:
        self.context = context
        layers = nn.Sequential(
            nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(self.options.get("dropout", 0.0)), nn.Linear(4, 1)
        )
        self.model = context.wrap_model(layers)
        self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.parameters(), lr=0.01))

    def build_training_data_loader(self) -> Any:
        options = self.options
        return DataLoader(
            Records(options.get("records", 22), noise=options.get("noise", False)),
            batch_size=4,
            shuffle=options.get("shuffle", False),
            num_workers=options.get("workers", 0),
            multiprocessing_context="fork" if options.get("workers") else None,
        )

    def build_validation_data_loader(self) -> Any:
        return DataLoader(Records(7), batch_size=2)

    def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
        loss = self.model(batch / 10).pow(2).mean()
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        type(self).log.append((epoch_idx, batch_idx, batch.flatten().tolist(), loss.item()))
        type(self).weights = {name: value.clone() for name, value in inner(self.model).state_dict().items()}
        if self.chief is not None and self.options.get("leave_after") == batch_idx + 1:
            self.chief.ask_to_stop()
        return {"loss": loss}

    def evaluate_batch(self, batch: torch.Tensor) -> Any:
        return {"value": batch[:, 0].mean(), "largest": batch[:, 0].max(), "count": float(len(batch))}

    def evaluation_reducer(self) -> Any:
        return {"value": Reducer.AVG, "largest": Reducer.MAX, "count": Reducer.SUM}


def logged(options: dict[str, Any]) -> type[Logged]:
    return type("Trial", (Logged,), {"options": options, "log": [], "weights": {}})


def resume(place: Place, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train whole, and in two parts; say whether both are alike in this process."""
    config = {
        "optimizations": {"aggregation_frequency": options.get("frequency", 1)},
        "min_validation_period": {"batches": 4},
        "scheduling_unit": 4,
    }
    fields = {"config": config, "max_length": Length("batches", 11)}
    whole, cut = logged(options), logged({**options, "leave_after": 5})
    place.drive(whole, place.info(f"{name}-whole", **fields))
    info = place.info(f"{name}-cut", **fields)
    reason = place.drive(cut, info)
    stopped = len(cut.log)
    cut.options = options
    place.drive(cut, place.again(info, 2))
    return {
        "reason": reason.value,
        "stopped": stopped,
        "log": whole.log == cut.log,
        "weights": all(torch.equal(value, cut.weights[key]) for key, value in whole.weights.items()),
        "own": whole.log,
    }


GRID = {
    "plain": {},
    "shuffled with dropout": {"shuffle": True, "dropout": 0.5},
    "aggregated": {"shuffle": True, "dropout": 0.5, "frequency": 3},
    "noise": {"shuffle": True, "noise": True},
    "workers": {"shuffle": True, "noise": True, "workers": 2},
}


def grid(place: Place) -> Any:
    return {name: resume(place, name, options) for name, options in GRID.items()}


def epochs(place: Place) -> Any:
    """The records of the first two epochs, for data sets of several sizes."""
    found = {}
    for records in (16, 22, 10):
        trial = logged({"records": records, "shuffle": True})
        place.drive(trial, place.info(f"epochs-{records}", max_length=Length("epochs", 2)))
        found[records] = [(epoch, batch[::2]) for epoch, _, batch, _ in trial.log]
    return found


def metrics(place: Place) -> Any:
    """What rank 0 recorded, and what every rank's callbacks were given."""
    seen: list[Any] = []

    class Watching(PyTorchCallback):
        def on_training_workload_end(self, avg_metrics: Any, batch_metrics: Any) -> None:
            seen.append((avg_metrics["loss"], [float(row["loss"]) for row in batch_metrics]))

        def on_validation_end(self, metrics: Any) -> None:
            seen.append(metrics)

        def on_checkpoint_write_end(self, checkpoint_dir: Path) -> None:
            seen.append("written")

        def on_checkpoint_upload_end(self, uuid: str) -> None:
            seen.append("uploaded")

    class Trial(Logged):
        log: ClassVar[list[Any]] = []

        def __init__(self, context: Any) -> None:
            super().__init__(context)
            self.count = context.wrap_reducer(Gathered(), name="gathered", for_training=False)
            self.flat = context.wrap_reducer(list, name="flat", for_training=False)

        def build_callbacks(self) -> Any:
            return {"watching": Watching()}

        def evaluate_batch(self, batch: torch.Tensor) -> Any:
            self.count.seen += len(batch)
            self.flat.update(batch[0, 0].item())
            return super().evaluate_batch(batch)

    place.drive(Trial, place.info("metrics", max_length=Length("batches", 2)))
    return {"seen": seen, "losses": [loss for *_, loss in Trial.log]}


class Gathered(MetricReducer):
    """The number of records that each process has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def reset(self) -> None:
        self.seen = 0

    def per_slot_reduce(self) -> int:
        return self.seen

    def cross_slot_reduce(self, per_slot_metrics: list[Any]) -> list[Any]:
        return per_slot_metrics


def gradients(place: Place) -> Any:
    """Weights after plain SGD, and how often gradients were averaged, with aggregation over two batches."""
    sums: list[int] = []
    firsts: list[Any] = []

    def counted(state, bucket):  # type: ignore[no-untyped-def]  # torch looks at annotations
        sums.append(1)
        return default_hooks.allreduce_hook(None, bucket)

    class Trial(Logged):
        log: ClassVar[list[Any]] = []

        def __init__(self, context: Any) -> None:
            self.context = context
            self.model = context.wrap_model(nn.Linear(2, 1))
            self.model.register_comm_hook(None, counted)
            self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.01))
            assert self.model.in_features == 2  # the wrapper passes it on
            firsts.append({name: value.clone() for name, value in inner(self.model).state_dict().items()})

    config = {"optimizations": {"aggregation_frequency": 2}}
    place.drive(Trial, place.info("gradients", max_length=Length("batches", 4), config=config))
    return {"first": firsts[0], "last": Trial.weights, "sums": len(sums)}


def stopping(place: Place) -> Any:
    """The trial asks to stop in one process only, in another than rank 0."""

    class Trial(Logged):
        log: ClassVar[list[Any]] = []

        def train_batch(self, batch: torch.Tensor, epoch_idx: int, batch_idx: int) -> Any:
            if self.context.distributed.rank == self.context.distributed.size - 1:
                self.context.set_stop_requested(stop_requested=True)
            return super().train_batch(batch, epoch_idx, batch_idx)

    info = place.info("stopping", max_length=Length("batches", 9), config={"scheduling_unit": 3})
    return place.drive(Trial, info).value, len(Trial.log)


def whole_set(place: Place) -> Any:
    """A trial that validates the whole data set at once."""
    read: list[int] = []

    class Trial(Logged):
        log: ClassVar[list[Any]] = []
        evaluate_batch = PyTorchTrial.evaluate_batch

        def evaluate_full_dataset(self, data_loader: Any) -> Any:
            read.extend(int(record) for batch in data_loader for record in batch[:, 0])
            return {"records": len(read)}

    place.drive(Trial, place.info("whole", max_length=Length("batches", 1)))
    return read


def interchange(place: Place) -> Any:
    """A checkpoint of several processes, taken up by one and by several again, and one of one by several."""
    several, alone, again = logged({}), logged({}), logged({})
    info = place.info("interchange", max_length=Length("batches", 2))
    place.drive(several, info)
    second = place.again(info, 2, max_length=Length("batches", 3))
    single = Place(place.directory, Alone())
    if place.group.rank == 0:
        single.drive(alone, replace(second, slots=1))
    place.group.broadcast(None)
    third = place.again(info, 3, max_length=Length("batches", 5))
    place.drive(again, third)
    return [len(trial.log) for trial in (several, alone, again)]


SCENARIOS: dict[str, Callable[[Place], Any]] = {
    "grid": grid,
    "epochs": epochs,
    "metrics": metrics,
    "gradients": gradients,
    "stopping": stopping,
    "whole_set": whole_set,
    "interchange": interchange,
}


def main() -> None:
    directory, *names = sys.argv[1:]
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    store = f"file://{directory}/store"
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE)
    )
    place = Place(Path(directory), SocketGroup(rank, size, os.environ["POINT"], join=PATIENCE))
    results = {name: SCENARIOS[name](place) for name in names}
    torch.save(results, Path(directory) / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
