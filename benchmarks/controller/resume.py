"""Time from `kill -9` of a controller until the next one has adopted all running trials.

    PYTHONPATH=. python benchmarks/controller/resume.py IMAGE [TRIALS ...]

Real processes on the engine of this host: one controller runs a search of TRIALS trials, each in a
container that sleeps, on a GPU that is none (a CDI device, so it takes root). It is killed, and then the
container of the trial that started last. The clock runs from the start of the next controller until that end
stands in the journal: by then it has read the journal, asked the engine about every trial before, and judged.
The floor is a Python that imports what a controller imports. IMAGE is any that has `sleep`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import docker

from detbuild.config.parse import config_from_mapping
from detbuild.config.rewrite import completed
from detbuild.controller.lease import holder
from detbuild.controller.requests import request, resume_one
from detbuild.engine.docker import DockerEngine
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from detbuild.store.state import fold
from tests.cdi import fake_gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.engine.protocol import Engine
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState

ROUNDS = 5
PATIENCE = 120.0  # seconds


def submit(home: Home, engine: Engine, image: str, trials: int) -> ExperimentFolder:
    raw = {
        "name": "sleeping",
        "entrypoint": ["true"],
        "resources": {"slots_per_trial": 1},
        "searcher": {
            "name": "random",
            "metric": "loss",
            "max_trials": trials,
            "max_concurrent_trials": trials,
            "max_length": {"batches": 1},
        },
    }
    config, folder = completed(config_from_mapping(raw), seed=1), home.new_experiment()
    user = f"{os.getuid()}:{os.getgid()}"
    header = Header(
        id=folder.id,
        name="sleeping",
        context_name="c",
        created=0.0,
        image=image,
        user=user,
        engine=engine.info().id,
    )
    folder.write(header, {"config.json": json.dumps(config.resolved()).encode()})
    return folder


def state(folder: ExperimentFolder) -> ExperimentState:
    return fold(folder.header(), folder.journal())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it takes too long; see controller.log in the experiment's folder")
        time.sleep(0.002)


def all_run(folder: ExperimentFolder, engine: Engine, trials: int) -> bool:
    runs = [trial.open_run for trial in state(folder).trials.values()]
    containers = [run.container for run in runs if run and run.created]
    found = [engine.inspect(container) for container in containers] if len(containers) == trials else []
    return [each.status for each in found if each] == ["running"] * trials


def one_round(folder: ExperimentFolder, engine: Engine, trials: int) -> float:
    """Seconds from the start of the controller to the end of the last trial in the journal."""
    until(lambda: all_run(folder, engine, trials))
    found = holder(folder.lock_file)
    if found is None:
        raise SystemExit("no controller is running")
    os.kill(found.pid, signal.SIGKILL)
    until(lambda: holder(folder.lock_file) is None)
    open_runs = [(trial.id, run) for trial in state(folder).trials.values() if (run := trial.open_run)]
    trial_id, last = max(open_runs, key=lambda one: one[1].started or 0.0)
    engine.signal(last.container, "SIGKILL")
    until(lambda: (there := engine.inspect(last.container)) is None or there.ended)
    before = folder.journal_file.stat().st_size
    wanted = b'"kind":"run_finished","trial_id":%d,' % trial_id
    begun = time.perf_counter()
    resume_one(folder)
    until(lambda: wanted in folder.journal_file.read_bytes()[before:])
    return time.perf_counter() - begun


def imports() -> float:
    """Seconds of a Python that imports what a controller does."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import detbuild.controller.__main__"], check=True)
    return time.perf_counter() - begun


def measure(engine: Engine, image: str, trials: int) -> None:
    with tempfile.TemporaryDirectory() as directory, fake_gpus(trials) as names:
        until(lambda: set(names) <= set(engine.info().cdi_devices))
        home = Home.open(Path(directory))
        folder = submit(home, engine, image, trials)
        resume_one(folder)
        pairs = [(imports(), one_round(folder, engine, trials)) for _ in range(ROUNDS)]
        request(home, folder.id, "kill")
        until(lambda: state(folder).over and not engine.find({"detbuild.home": home.id}))
    floor, ours = (median(column) for column in zip(*pairs, strict=True))
    worst = max(seconds for _, seconds in pairs)
    print(
        f"{trials:4d} trials: adopted after {ours:.2f} s (longest {worst:.2f} s), "
        f"imports alone {floor:.2f} s, ratio {ours / floor:.1f}"
    )


def main(arguments: list[str]) -> None:
    if not arguments:
        raise SystemExit(__doc__)
    engine, client = DockerEngine(), docker.from_env()
    dockerfile = f'FROM {arguments[0]}\nENTRYPOINT ["sleep", "3600"]\n'.encode()
    image, _ = client.images.build(fileobj=io.BytesIO(dockerfile), rm=True)
    for trials in [int(text) for text in arguments[1:]] or [1, 8, 32]:
        measure(engine, str(image.id), trials)
    client.images.remove(str(image.id))
    client.close()
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
