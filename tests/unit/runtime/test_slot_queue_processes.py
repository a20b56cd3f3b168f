"""Controllers as processes that compete for GPUs, one of them killed; a directory stands for the engine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

COMPETE = """
import sys, time
from pathlib import Path
from detbuild.engine.protocol import ContainerState
from detbuild.runtime.gpus import Gpu
from detbuild.runtime.slot_queue import SlotQueue
from detbuild.runtime.slot_queue import gpu_inventory
from detbuild.runtime.slot_requests import SlotRequest

directory, name, slots, trials = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
held, done = directory / "held", directory / "done"
queue = SlotQueue(directory)
ticket = SlotRequest(engine="e", kind="gpu", user="0", experiment=f"{name}/1", slots=slots, waiting={})


def stock():
    there = []
    for file in held.iterdir():
        try:
            owner, trial = file.read_text().split()
        except FileNotFoundError:  # it has just ended
            continue
        labels = {"detbuild.home": owner, "detbuild.experiment": "1", "detbuild.trial": trial,
                  "detbuild.user": "0", "detbuild.weight": "1", "detbuild.gpus": file.name}
        there.append(ContainerState(id=file.name, name=file.name, status="running", labels=labels))
    return gpu_inventory([Gpu(str(number)) for number in range(3)], there, "e")


for trial in range(trials):
    gpus = ()
    while not gpus:
        with queue.lock():
            gpus, why = queue.ask(ticket, trial, stock, now=time.monotonic())
            for gpu in gpus:
                with (held / gpu.id).open("x") as file:  # fails when somebody has it
                    file.write(f"{name} {trial}")
        time.sleep(0.005)
    time.sleep(0.01)
    for gpu in gpus:
        (held / gpu.id).unlink()
    with done.open("a") as file:
        file.write(f"{name}\\n")
"""


def test_processes_that_compete_for_gpus_never_share_one_and_all_get_theirs(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    done = tmp_path / "done"
    done.touch()

    def start(name: str, slots: int, trials: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", COMPETE, str(tmp_path), name, str(slots), str(trials)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    going = {name: start(name, slots, 8) for name, slots in (("a", 1), ("b", 1), ("c", 2), ("d", 3))}
    doomed = start("x", 3, 10_000)
    until(lambda: doomed.poll() is not None or done.read_text().split().count("x") > 1)
    assert doomed.poll() is None, doomed.communicate()
    doomed.kill()
    doomed.communicate()
    for file in (tmp_path / "held").iterdir():  # its containers end without it
        if file.read_text().startswith("x "):
            file.unlink()
    for name, process in going.items():
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, (name, errors.decode())
    finished = Counter(done.read_text().split())
    assert {name: finished[name] for name in going} == dict.fromkeys(going, 8)


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
