"""How many empty trials a minute one controller takes from start to end, and what memory that needs.

    python benchmarks/controller/trials.py fake [TRIALS]
    python benchmarks/controller/trials.py engine IMAGE [TRIALS]

`fake` uses an engine in memory, and prints a line for each tenth of the search: equal lines mean that a
trial costs the same however many there were before. `engine` compares with the bare engine, which docker-py
asks to create, start, wait for and remove as many containers of the same image, as many at a time; the two
take turns. IMAGE is any that has a shell and `sed`; a trial is a shell that writes down that it is done.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import docker

from detbuild.config.parse import config_from_mapping
from detbuild.config.rewrite import completed
from detbuild.controller.context import ControllerContext
from detbuild.controller.loop import Controller
from detbuild.controller.retry import SystemClock
from detbuild.runtime.docker import MAX_WORKERS, DockerRuntime
from detbuild.runtime.slot_queue import Limits, SlotQueue
from detbuild.search.method import Began, Close, Create, Finish, Train, TrialEnded
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from determined._contract.records import Ended, Exited, ExitReason, Started
from determined._contract.run_info import Length, RunInfo
from determined._run.events import EventFile
from tests.fakes import Exit, FakeEngine, Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.engine.protocol import Engine
    from detbuild.search.method import Action, SearchEvent

AT_ONCE = 16
ROUNDS = 3
RUN = "/run/detbuild/run"
RECORDS = (
    '"kind":"started","pid":1,"python":"","harness":""',
    '"kind":"ended","reason":"completed"',
    '"kind":"exited","code":0',
)
LINES = "".join(
    rf'{{"seq":{number},"run":"\2-\1","time":0,{record}}}\n' for number, record in enumerate(RECORDS, 1)
)
NUMBERS = r'.*"run": \([0-9]*\),.*"trial_id": \([0-9]*\).*'
SHELL = f"(sed 's/{NUMBERS}/{LINES[:-2]}/' {RUN}/run.json; echo) > {RUN}/events.jsonl"
CONFIG = {
    "name": "empty",
    "entrypoint": ["true"],
    "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
    "resources": {"slots_per_trial": 0},
}


class Search:
    """`count` trials, AT_ONCE at a time; keeps nothing of those that have ended."""

    needs_every_validation = False

    def __init__(self, count: int) -> None:
        self.count, self.made, self.ended = count, 0, 0

    @property
    def progress(self) -> float:
        return self.ended / self.count

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        if isinstance(event, Began):
            return [action for _ in range(min(AT_ONCE, self.count)) for action in self._new()]
        if not isinstance(event, TrialEnded):
            return ()
        self.ended += 1
        if self.ended == self.count:
            return (Finish(),)
        return self._new() if self.made < self.count else ()

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:  # noqa: ARG002  (it never differs)
        self.decide(event)

    def _new(self) -> Sequence[Action]:
        self.made += 1
        segment = Train(trial_id=self.made, length=Length("batches", 1))
        hparams = {"lr": 0.1}
        create = Create(trial_id=self.made, request_id=str(self.made), seed=self.made, hparams=hparams)
        return create, segment, Close(trial_id=self.made)


def empty(process: Process) -> Exit:
    """What the harness writes of a trial that does nothing."""
    info = RunInfo.load(process.run_dir)
    events = EventFile(process.run_dir / "events.jsonl", info.name)
    for record in (Started(1, "3.11", "0"), Ended(ExitReason.COMPLETED), Exited(0)):
        events.append(record)
    events.close()
    return Exit(0)


def controller(home: Home, engine: Engine, image: str, search: Search, *, max_workers: int = 1) -> Controller:
    config = completed(config_from_mapping(CONFIG), seed=1)
    folder = home.new_experiment()
    user = f"{os.getuid()}:{os.getgid()}"
    header = Header(id=folder.id, name="empty", context_name="c", created=0.0, image=image, user=user)
    folder.write(header, {"config.json": json.dumps(config.resolved()).encode()})
    context = ControllerContext(
        folder=folder,
        runtime=DockerRuntime(
            engine,
            header,
            SlotQueue(home.path),
            limits=lambda: Limits(cpu_trials=AT_ONCE),
            max_workers=max_workers,
            nvidia_smi=str,
        ),
        config=config,
        home_id=home.id,
        clock=SystemClock(),
    )
    return Controller(context, search)


def resident() -> float:
    """MiB now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def on_the_fake(count: int) -> None:
    engine = FakeEngine(empty)
    image = engine.add_image("empty")
    search = Search(count)
    with tempfile.TemporaryDirectory() as directory:
        driven = controller(Home.open(Path(directory)), engine, image, search)
        lap, tenth = time.perf_counter(), max(1, count // 10)
        while not driven.done:
            driven.step()
            engine.effects.done.clear()
            if search.ended >= tenth:
                now = time.perf_counter()
                rate = (count // 10) / (now - lap) * 60
                print(f"{search.ended:6d} trials: {rate:8.0f} a minute, {resident():6.1f} MiB")
                lap, tenth = now, tenth + count // 10


def on_the_engine(image: str, count: int) -> None:
    from detbuild.engine.docker import DockerEngine

    engine, client = DockerEngine(), docker.APIClient(max_pool_size=AT_ONCE)
    found = empty_image(image)
    rounds = [(_bare(client, found, count), _ours(engine, found, count)) for _ in range(ROUNDS)]
    for bare, ours in rounds:
        print(f"bare engine {bare:6.0f} a minute, detbuild {ours:6.0f} a minute, ratio {ours / bare:.2f}")
    print(f"median ratio {median(ours / bare for bare, ours in rounds):.2f}")
    client.remove_image(found)
    client.close()
    engine.close()


def _ours(engine: Engine, image: str, count: int) -> float:
    """Trials a minute that one controller takes from start to end."""
    with tempfile.TemporaryDirectory() as directory:
        home = Home.open(Path(directory))
        driven = controller(home, engine, image, Search(count), max_workers=MAX_WORKERS)
        begun = time.perf_counter()
        driven.run()
        return count / (time.perf_counter() - begun) * 60


def empty_image(base: str) -> str:
    """The image whose containers write the records of a trial that does nothing, and end."""
    dockerfile = f"FROM {base}\nENTRYPOINT {json.dumps(['/bin/sh', '-c', SHELL])}\n".encode()
    image, _ = docker.from_env().images.build(fileobj=io.BytesIO(dockerfile), rm=True)
    return str(image.id)


def _bare(client: docker.APIClient, image: str, count: int) -> float:
    """Create, start, wait for and remove, AT_ONCE at a time; containers a minute."""

    def one(_number: int) -> None:
        container = client.create_container(image)["Id"]
        client.start(container)
        client.wait(container)
        client.remove_container(container)

    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(count)))
    return count / (time.perf_counter() - begun) * 60


def main(arguments: list[str]) -> None:
    match arguments:
        case ["fake", *rest]:
            on_the_fake(int(rest[0]) if rest else 10_000)
        case ["engine", image, *rest]:
            on_the_engine(image, int(rest[0]) if rest else 100)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
