"""Who gets which GPU of a real engine: controllers of several homes, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from detbuild import experiment
from detbuild.config.parse import config_from_mapping
from detbuild.config.rewrite import completed
from detbuild.controller.lease import holder
from detbuild.controller.requests import resume_one
from detbuild.events import Event
from detbuild.experiment import SubmitRequest, this_host
from detbuild.runtime.gpus import held
from detbuild.runtime.labels import GPU_LABEL
from detbuild.runtime.slot_requests import SlotRequests, lock_directory
from detbuild.store.experiment_dir import ExperimentFolder
from detbuild.store.home import Home
from detbuild.store.state import load

pytestmark = pytest.mark.engine

MODEL = Path(__file__).parents[1] / "faults" / "model"
CONFIG = {
    "name": "slots",
    "entrypoint": ["python3", "train.py"],
    "searcher": {"name": "single", "metric": "accuracy", "smaller_is_better": False},
    "resources": {"slots_per_trial": 0},
    "hyperparameters": {"batches": 20, "pace": 0.05, "ballast": 10, "hold": 0},
}


@pytest.fixture
def homes(engine, tmp_path):
    """Two homes with nothing in them; what still runs in the end is killed."""
    homes = [Home.open(tmp_path / name) for name in ("one", "two")]
    yield homes
    for home in homes:
        for number in home.ids():
            pid = holder(home.folder(number).lock_file)
            if pid is not None:
                os.kill(pid.pid, signal.SIGKILL)
        for container in engine.find({"detbuild.home": home.id}):
            engine.remove(container.id)


@pytest.fixture
def submit(engine, homes, tmp_path):
    """Start an experiment of a home with `slots` GPUs, in an image that needs none."""
    host = this_host({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    order = SubmitRequest(config=config_from_mapping(CONFIG), text="", context_dir=MODEL)
    submission = experiment.prepare(order, host, homes[0], ignore, builder=engine)
    image = experiment.build_image(submission, host, homes[0], ignore, builder=engine)

    def submit(home: Home, slots: int = 1, **changes: object) -> ExperimentFolder:
        mapping = {**CONFIG, "resources": {"slots_per_trial": slots}, **changes}
        config = completed(config_from_mapping(mapping), seed=1)
        folder = home.new_experiment()
        header = experiment._header(order, config, host, number=folder.id)
        header = replace(header, image=image, engine=engine.info().id)
        folder.write(header, {"config.json": json.dumps(config.resolved()).encode()})
        resume_one(folder)
        return folder

    return submit


def ignore(_event: Event) -> None: ...


def watch(engine, folders, *, silence: float = 300.0) -> list[frozenset[str]]:
    """Poll the slots in use until all experiments have ended; return what each poll saw.

    Fails only when no experiment makes any progress for `silence` seconds.
    """
    looks, states = [], [load(folder) for folder in folders]
    deadline = time.monotonic() + silence
    while not all(state.over for state in states):
        before, states = states, [load(folder) for folder in folders]
        if states != before:
            deadline = time.monotonic() + silence
        assert time.monotonic() < deadline, states
        going = [container for container in engine.find({GPU_LABEL: ""}) if container.lives]
        looks.append(held(going))
        given = Counter(gpu for container in going for gpu in container.labels[GPU_LABEL].split(","))
        assert set(given.values()) <= {1}, f"a GPU was given twice: {given}"
        time.sleep(0.03)
    return looks


def test_experiments_of_two_homes_share_two_gpus_and_never_one_of_them(engine, gpus, homes, submit) -> None:
    folders = [submit(home) for _ in range(3) for home in homes]
    looks = watch(engine, folders)
    assert {load(folder).state for folder in folders} == {"COMPLETED"}
    assert max(looks, key=len) == set(gpus)
    assert Counter(gpu for folder in folders for gpu in load(folder).trials[1].runs[0].gpu_ids).keys() == set(
        gpus
    )


def test_the_trials_of_a_search_take_turns_on_two_gpus(engine, gpus, homes, submit) -> None:
    searcher = {"name": "random", "max_trials": 4, "max_concurrent_trials": 4, "max_length": 20}
    folder = submit(homes[0], searcher={**CONFIG["searcher"], **searcher})
    until(lambda: "GPU" in load(folder).why, "the reason")
    looks = watch(engine, [folder])
    trials = load(folder).trials.values()
    assert [trial.state for trial in trials] == ["COMPLETED"] * 4
    assert max(looks, key=len) == set(gpus)
    assert {gpu for trial in trials for gpu in trial.runs[0].gpu_ids} == set(gpus)
    assert [len(trial.runs) for trial in trials] == [1] * 4


def test_a_trial_that_needs_both_gpus_is_not_passed_by_a_stream_of_small_ones(
    engine, gpus, homes, submit
) -> None:
    holding = {**CONFIG["hyperparameters"], "hold": 5}  # until all others are in the queue
    small = [submit(homes[0], hyperparameters=holding) for _ in range(2)]
    until(lambda: all(load(folder).state == "RUNNING" for folder in small), "the small ones")
    large = submit(homes[1], slots=2)
    until(lambda: ", 2 needed" in load(large).why, "the reason")
    late = [submit(homes[0]) for _ in range(3)]
    until(lambda: all(load(folder).why for folder in late), "the reasons of the late ones")
    for folder in small:
        (folder.checkpoints / "go").touch()
    watch(engine, [*small, large, *late])
    began = load(large).trials[1].runs[0].started
    assert sum(load(folder).trials[1].runs[0].started < began for folder in late) <= 1
    assert sorted(load(large).trials[1].runs[0].gpu_ids) == sorted(gpus)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_controller_that_dies_or_is_stopped_while_it_waits_holds_nobody_up(
    engine, gpus, homes, submit, number: signal.Signals
) -> None:
    first = submit(homes[0], slots=2)
    until(lambda: load(first).state == "RUNNING", "the first")
    gone = submit(homes[1], slots=2)
    until(lambda: load(gone).why, "the reason")
    pid = holder(gone.lock_file).pid
    os.kill(pid, number)
    last = submit(homes[0], slots=2)
    watch(engine, [first, last])
    assert load(gone).state == "QUEUED"
    names = {request.experiment for request in SlotRequests(lock_directory() / "detbuild-slots").others()}
    assert (f"{homes[1].id}/{gone.id}" in names) == (number is signal.SIGSTOP)
    if number is signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        resume_one(gone)
    watch(engine, [gone])


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 300  # only ends a test that hangs
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)
