"""The engine itself is killed, stopped or short of space: a second dockerd, which is nobody else's."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild import experiment
from detbuild.config.parse import config_from_mapping
from detbuild.config.rewrite import completed
from detbuild.controller.context import ControllerContext
from detbuild.controller.loop import Controller
from detbuild.controller.retry import SystemClock
from detbuild.engine.docker import DockerEngine
from detbuild.events import BuildStep, Event
from detbuild.experiment import SubmitRequest, this_host
from detbuild.runtime.docker import DockerRuntime
from detbuild.runtime.slot_queue import SlotQueue
from detbuild.search.registry import search_method
from detbuild.store import journal
from detbuild.store.experiment_dir import ExperimentFolder, Header, config_of
from detbuild.store.home import Home
from detbuild.store.state import load
from tests.faults.real import BATCHES, CONFIG, HOLD, MODEL, SEARCH, expected, full, mounted
from tests.faults.training import trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.engine.protocol import ContainerSpec

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("dockerd") is None,
        reason="it takes root and dockerd to start a second engine",
    ),
    # A killed engine leaves docker-py with half-closed sockets that only the collector finds.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# A bridge of its own: with `--bridge=none` an engine removes docker0, which is the first engine's.
BRIDGE = "detbuild-test0"


class WithoutNetwork(DockerEngine):
    """The containers of the second engine need no network, and it must not touch the host's firewall."""

    def create(self, spec: ContainerSpec) -> str:
        return super().create(replace(spec, network="none"))


@dataclass
class Dockerd:
    place: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.place}/docker.sock"

    @property
    def data_root(self) -> Path:
        return self.place / "data-root"

    def start(self, *flags: str) -> None:
        command = [
            "dockerd",
            "-H",
            self.host,
            f"--bridge={BRIDGE}",
            "--iptables=false",
            "--ip6tables=false",
            *flags,
        ]
        for name in ("data-root", "exec-root", "pidfile"):
            command += [f"--{name}", str(self.place / name)]
        (self.place / "pidfile").unlink(missing_ok=True)
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: self.docker("version", check=False).returncode == 0, what="the second engine")

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()
        containerd = self.place / "exec-root/containerd/containerd.pid"
        if number is signal.SIGKILL:
            # Where nobody reaps orphans, the next dockerd would wait ten seconds for this one.
            pid = int(containerd.read_text())
            wait_for(lambda: not runs(pid), what="the end of containerd")
            containerd.unlink()

    def docker(
        self, *arguments: str, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", "-H", self.host, *arguments], check=check, capture_output=True, **options
        )  # type: ignore[call-overload]


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], *, what: str, patience: float = 90) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dockerd, str]]:
    """A second engine that has the image of the model."""
    place = tmp_path_factory.mktemp("dockerd")
    first, second = DockerEngine(), Dockerd(place)
    host, home = this_host({"HOME": str(place)}), Home.open(place / "home")
    order = SubmitRequest(config=config_from_mapping(CONFIG), text="", context_dir=MODEL)
    ignored: list[Event] = []
    submission = experiment.prepare(order, host, home, ignored.append, builder=first)
    experiment.build_image(submission, host, home, ignored.append, builder=first)
    first.close()
    saved = subprocess.run(["docker", "save", submission.plan.tag], check=True, capture_output=True).stdout
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "198.51.100.1/28", "dev", BRIDGE], check=True)
    with mounted(second.data_root, "1g"):
        second.start()
        second.docker("load", input=saved)
        found = json.loads(second.docker("image", "inspect", submission.plan.tag).stdout)[0]["Id"]
        second.end(signal.SIGTERM)
        yield second, found
    subprocess.run(["ip", "link", "delete", BRIDGE], check=True)
    shutil.rmtree(place, ignore_errors=True)


def submitted(home: Home, image: str, changes: Mapping[str, object] | None = None) -> ExperimentFolder:
    config = completed(config_from_mapping({**CONFIG, **(changes or {})}), seed=7)
    folder = home.new_experiment()
    header = Header(
        id=folder.id, name="f", context_name="m", created=0.0, image=image, metric="accuracy", user="0:0"
    )
    folder.write(header, {"config.json": json.dumps(config.resolved()).encode()})
    return folder


def driven(folder: ExperimentFolder, home: Home, engine: DockerEngine) -> threading.Thread:
    """A controller of the experiment, at work."""
    config = config_of(folder)
    context = ControllerContext(
        folder=folder,
        runtime=DockerRuntime(engine, folder.header(), SlotQueue(home.path), nvidia_smi=str),
        config=config,
        home_id=home.id,
        clock=SystemClock(),
    )
    driving = threading.Thread(target=Controller(context, search_method(config)).run, daemon=True)
    driving.start()
    return driving


def steps(folder: ExperimentFolder) -> int:
    trial = load(folder).trials.get(1)
    return trial.progress.steps_completed if trial else 0


def possible_outcomes(number: signal.Signals, *, live_restore: bool) -> list[list[str]]:
    if live_restore:
        return [["completed"]]
    if number is signal.SIGTERM:
        return [["preempted", "completed"]]
    # The trial lives on until the next engine stops or kills it.
    return [["infrastructure", "completed"], ["preempted", "completed"]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("flags", [(), ("--live-restore",)], ids=["plain", "live-restore"])
def test_the_engine_goes_away_and_comes_back(
    image: tuple[Dockerd, str], tmp_path: Path, number: signal.Signals, flags: tuple[str, ...]
) -> None:
    dockerd, image_id = image
    dockerd.start(*flags)
    engine = WithoutNetwork(dockerd.host)
    home = Home.open(tmp_path)
    folder = submitted(home, image_id)
    driving = driven(folder, home, engine)
    try:
        wait_for(lambda: steps(folder) == HOLD, what="training")
        dockerd.end(number)
        wait_for(lambda: "Docker Engine" in load(folder).why, what="the reason")
        if flags:  # the trial trains to its end while the engine is away
            (folder.checkpoints / "go").touch()
            wait_for(lambda: steps(folder) == BATCHES, what="the trial's end")
        dockerd.start(*flags)
        (folder.checkpoints / "go").touch()
        driving.join(90)
        state = load(folder)
        outcomes = [run.finished.outcome for run in state.trials[1].runs if run.finished]
        assert (state.state, state.trials[1].restarts) == ("COMPLETED", 0)
        assert outcomes in possible_outcomes(number, live_restore=bool(flags))
        assert trajectory(folder, state.trials[1]) == expected()
        assert engine.find({"detbuild.home": home.id}) == ()
    finally:
        engine.close()
        dockerd.end(signal.SIGTERM)
        gc.collect()


@pytest.mark.parametrize("flags", [(), ("--live-restore",)], ids=["plain", "live-restore"])
def test_a_search_outlives_an_engine_that_is_killed_and_one_that_is_stopped(
    image: tuple[Dockerd, str], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    dockerd, image_id = image
    dockerd.start(*flags)
    engine = WithoutNetwork(dockerd.host)
    home = Home.open(tmp_path)
    hparams = {"batches": 20, "pace": 0.15, "ballast": 10, "hold": 0, "in_segments": True}
    folder = submitted(home, image_id, {**SEARCH, "hyperparameters": hparams})
    driving = driven(folder, home, engine)
    try:
        for number in (signal.SIGKILL, signal.SIGTERM):
            wait_for(lambda: load(folder).state == "RUNNING", what="a running trial")
            time.sleep(0.5)
            dockerd.end(number)
            wait_for(lambda: "Docker Engine" in load(folder).why, what="the reason")
            dockerd.start(*flags)
        driving.join(90)
        state = load(folder)
        assert (state.state, len(state.trials)) == ("COMPLETED", 4)
        for each in state.trials.values():
            assert (each.state, each.restarts) == ("COMPLETED", 0)
            assert trajectory(folder, each) == expected(each.progress.steps_completed)
        assert max(each.progress.steps_completed for each in state.trials.values()) == 20
        told = [str(e.fact.event) for e in folder.journal() if isinstance(e.fact, journal.Searched)]
        assert len(told) == len(set(told))
        assert engine.find({"detbuild.home": home.id}) == ()
    finally:
        engine.close()
        dockerd.end(signal.SIGTERM)
        gc.collect()


def test_a_full_data_root_loses_nothing_and_is_waited_for(image: tuple[Dockerd, str], tmp_path: Path) -> None:
    dockerd, image_id = image
    dockerd.start()
    engine = WithoutNetwork(dockerd.host)
    home = Home.open(tmp_path)
    folders = [submitted(home, image_id) for _ in range(2)]
    try:
        first = driven(folders[0], home, engine)
        wait_for(lambda: steps(folders[0]) == HOLD, what="training")
        with full(dockerd.data_root):
            (folders[0].checkpoints / "go").touch()
            first.join(60)
            assert load(folders[0]).state == "COMPLETED"
            with full(dockerd.data_root):  # what the removed container left
                second = driven(folders[1], home, engine)
                wait_for(lambda: "Docker Engine's disk is full" in load(folders[1]).why, what="the reason")
        (folders[1].checkpoints / "go").touch()
        second.join(60)
        for folder in folders:
            trial = load(folder).trials[1]
            assert (trial.state, trial.restarts) == ("COMPLETED", 0)
            assert trajectory(folder, trial) == expected()
            printed = folder.run(1, len(trial.runs) - 1).output("stdout").read_text().splitlines()
            assert printed == [f"batch {number}" for number in range(1, BATCHES + 1)]
    finally:
        engine.close()
        dockerd.end(signal.SIGTERM)
        gc.collect()


@contextmanager
def registry() -> Iterator[tuple[int, list[str]]]:
    """A registry that has nothing: its port, and the paths that it was asked for."""
    asked: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815  (http.server's name)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("image")  # its bridge
def test_a_local_base_is_asked_for_at_no_registry_with_the_containerd_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path = tmp_path_factory.mktemp("store")  # the path of a socket must be short
    host, home = this_host({"HOME": str(tmp_path)}), Home.open(tmp_path / "home")
    order = SubmitRequest(config=config_from_mapping(CONFIG), text="", context_dir=MODEL)
    ignored: list[Event] = []
    first, dockerd = DockerEngine(), Dockerd(tmp_path)
    base = experiment.prepare(order, host, home, ignored.append, builder=first).plan.base_image
    first.close()
    saved = subprocess.run(["docker", "save", base], check=True, capture_output=True).stdout
    with registry() as (port, asked):
        mirror = f"--registry-mirror=http://127.0.0.1:{port}"
        dockerd.start("--feature=containerd-snapshotter=true", mirror)
        engine = DockerEngine(dockerd.host)
        try:
            dockerd.docker("load", input=saved)
            dockerd.docker("tag", base, "localhost:1/detbuild-build:1000-killed")
            submission = experiment.prepare(order, host, home, ignored.append, builder=engine)
            experiment.build_image(submission, host, home, ignored.append, builder=engine)
            assert asked == []
            assert b"localhost:1" not in dockerd.docker("images").stdout
            steps_ = [event.name for event in ignored if isinstance(event, BuildStep)]
            assert any(base in name for name in steps_)
            assert not any("localhost:1" in name for name in steps_)
            dockerd.docker("pull", "detbuild-test/absent", check=False)
            assert asked  # it would have been heard
        finally:
            engine.close()
            dockerd.end(signal.SIGTERM)
            gc.collect()
            shutil.rmtree(dockerd.data_root, ignore_errors=True)
