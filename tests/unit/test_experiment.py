from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from detbuild import experiment
from detbuild.checkpoint.find import checkpoints_of
from detbuild.config.host import HostConfig
from detbuild.config.parse import parse_config
from detbuild.controller.lease import holder
from detbuild.controller.requests import request, resume
from detbuild.errors import ConfigError, ContextError, EngineError, SearchError
from detbuild.events import (
    Event,
    ExperimentCreated,
    ExperimentEnded,
    ImageReady,
    RunEnded,
    RunOutput,
    RunStarted,
    Warned,
)
from detbuild.experiment import Host, SubmitRequest, this_host
from detbuild.store.home import Home
from detbuild.store.state import load
from determined._contract.checkpoints import verify
from determined._contract.run_info import RunInfo
from tests.fakes import INFO, FakeEngine, FakeImage, gpus

SCRIPT = (
    "{name: s, entrypoint: [python3, train.py], searcher: {name: single, metric: loss}, "
    "resources: {slots_per_trial: 0}}"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return this_host({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


def order(tmp_path: Path, script: str, *, config: str = SCRIPT) -> SubmitRequest:
    context = tmp_path / "model"
    context.mkdir(exist_ok=True)
    (context / "train.py").write_text(script)
    return SubmitRequest(config=parse_config(config), text=config, context_dir=context)


@pytest.fixture
def no_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Controllers of their own would ask a real engine."""
    monkeypatch.setattr(experiment, "start_detached", lambda folder, held: None)
    monkeypatch.setattr("detbuild.runtime.docker.lock_directory", lambda: tmp_path)


def engine_with_base(order_: SubmitRequest, host: Host, home: Home) -> FakeEngine:
    engine = FakeEngine()
    plan = experiment.prepare(order_, host, home, list[Event]().append, builder=None).plan
    engine.add_image(plan.base_image)
    return engine


@pytest.mark.usefixtures("no_controller")
def test_a_submission_builds_once_then_starts(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "")
    engine = engine_with_base(wanted, host, home)
    events: list[Event] = []
    for _ in range(2):
        submission = experiment.prepare(wanted, host, home, events.append, builder=engine)
        experiment.submit(submission, host, home, events.append, engine=engine)
    assert [event.built for event in events if isinstance(event, ImageReady)] == [True, False]
    assert [event.experiment_id for event in events if isinstance(event, ExperimentCreated)] == [1, 2]
    assert [container.status for container in engine.containers.values()] == ["exited", "exited"]
    assert len(engine.built) == 1
    folder = home.experiment(1)
    assert (folder.path / "config.yaml").read_text() == SCRIPT
    assert (folder.path / "Dockerfile").read_text() == engine.built[0].dockerfile
    assert folder.header().image == next(iter(engine.tags[engine.built[0].tag].split()))


@pytest.mark.parametrize(("image", "sent"), [("", {}), ("image: {cpu: host/x:1}, ", {"username": "me"})])
def test_credentials_of_a_config_are_for_its_own_image(
    tmp_path: Path, home: Home, host: Host, image: str, sent: dict[str, str]
) -> None:
    environment = f", environment: {{{image}registry_auth: {{username: me}}}}}}"
    wanted = order(tmp_path, "", config=SCRIPT[:-1] + environment)
    engine = FakeEngine()
    base = experiment.prepare(wanted, host, home, list[Event]().append, builder=None).plan.base_image
    engine.registry[base] = FakeImage("sha256:1", {})
    experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
    assert engine.credentials == sent


def test_a_dry_run_plans_what_a_real_one_sends(tmp_path: Path, home: Home, host: Host) -> None:
    submission = experiment.prepare(order(tmp_path, ""), host, home, list[Event]().append, builder=None)
    info, spec = experiment.planned_run(submission, host)
    assert (info.entrypoint, spec.user, spec.gpus) == (("python3", "train.py"), host.user, ())
    assert home.ids() == ()


def test_a_host_without_gpus_is_said_before_anything_is_built(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "", config=SCRIPT.replace("slots_per_trial: 0", "slots_per_trial: 2"))
    engine = engine_with_base(wanted, host, home)
    engine.engine_info = gpus("0")
    submission = experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
    with pytest.raises(EngineError, match="requests 2 GPUs, but this host has only 1"):
        experiment.submit(submission, host, home, list[Event]().append, engine=engine)
    assert (engine.built, home.ids()) == ([], ())


def test_gpus_that_a_home_may_not_use_are_none(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "", config=SCRIPT.replace("slots_per_trial: 0", "slots_per_trial: 2"))
    wanted = replace(wanted, host_config=HostConfig(gpus=("1",)))
    engine = engine_with_base(wanted, host, home)
    engine.engine_info = gpus("0", "1")
    submission = experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
    with pytest.raises(EngineError, match="detbuild may use 1 of the 2 on this host"):
        experiment.submit(submission, host, home, list[Event]().append, engine=engine)
    assert (engine.built, home.ids()) == ([], ())


def test_a_directory_to_mount_that_is_not_there_is_said_before_anything_is_built(
    tmp_path: Path, home: Home, host: Host
) -> None:
    mounts = ", bind_mounts: [{host_path: /no/such/place, container_path: /data}]}"
    wanted = order(tmp_path, "", config=SCRIPT[:-1] + mounts)
    engine = engine_with_base(wanted, host, home)
    submission = experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
    with pytest.raises(ConfigError, match=r"bind_mounts\[0\].host_path: /no/such/place does not exist"):
        experiment.submit(submission, host, home, list[Event]().append, engine=engine)
    assert home.ids() == ()


def with_links(tmp_path: Path) -> tuple[Path, Path]:
    """A link to where no mount may lead, and the directory of an engine that is not in its usual place."""
    (tmp_path / "innocent").symlink_to("/etc")
    (tmp_path / "engine" / "volumes").mkdir(parents=True)
    return tmp_path / "innocent", tmp_path / "engine"


@pytest.mark.usefixtures("no_controller")
@pytest.mark.parametrize(
    "field",
    [
        "bind_mounts: [{{host_path: {}, container_path: /data}}]",
        "checkpoint_storage: {{type: shared_fs, host_path: {}}}",
    ],
)
def test_a_link_into_the_host_or_the_engine_is_not_mounted(
    tmp_path: Path, home: Home, host: Host, field: str
) -> None:
    link, root = with_links(tmp_path)
    for place in (link, root / "volumes"):
        wanted = order(tmp_path, "", config=f"{SCRIPT[:-1]}, {field.format(place)}}}")
        engine = engine_with_base(wanted, host, home)
        engine.engine_info = replace(INFO, data_root=str(root))
        submission = experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
        with pytest.raises(ConfigError, match="is a system directory of the host"):
            experiment.submit(submission, host, home, list[Event]().append, engine=engine)
    assert home.ids() == ()


@pytest.mark.usefixtures("no_controller")
def test_an_experiment_knows_its_engine(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "")
    engine = engine_with_base(wanted, host, home)
    submission = experiment.prepare(wanted, host, home, list[Event]().append, builder=engine)
    for environ, at in (({}, "memory"), ({"DOCKER_HOST": "tcp://there:2376"}, "tcp://there:2376")):
        from_host = replace(host, environ={**host.environ, **environ})
        number = experiment.submit(submission, from_host, home, list[Event]().append, engine=engine)
        header = home.experiment(number).header()
        assert (header.engine, header.engine_at) == ("fake", at)


def test_a_package_that_hides_the_harness_is_refused(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "")
    (wanted.context_dir / "determined.py").touch()
    with pytest.raises(ContextError, match=r"determined\.py in the context hides the harness"):
        experiment.prepare(wanted, host, home, list[Event]().append, builder=None)


@pytest.mark.usefixtures("no_controller")
def test_what_looks_like_a_slip_is_warned_about(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = order(tmp_path, "import torch")
    (wanted.context_dir / "requirements.txt").write_text("torch==1.99.0")
    os.mkfifo(wanted.context_dir / "pipe")
    engine = engine_with_base(wanted, host, home)
    there = replace(host, environ={"HTTPS_PROXY": "http://localhost:3128", "PIP_CONFIG_FILE": "/dev/null"})
    events: list[Event] = []
    submission = experiment.prepare(wanted, there, home, events.append, builder=engine)
    experiment.submit(submission, there, home, events.append, engine=engine)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert [text.split()[0] for text in warnings] == ["pipe", "torch", "HTTPS_PROXY", "pip's"]


def test_in_test_mode_only_what_the_user_wrote_is_warned_about(
    tmp_path: Path, home: Home, host: Host
) -> None:
    events: list[Event] = []
    for field in ("{}", "{enabled: true}"):
        config = f"{SCRIPT[:-1]}, profiling: {field}}}"
        wanted = replace(order(tmp_path, "", config=config), test_mode=True)
        experiment.prepare(wanted, host, home, events.append, builder=None)
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.message == "accepted, but not implemented yet: profiling"


# a checkpoint to start from

SAVES = """
import json, os, sys
from pathlib import Path
from determined._contract import checkpoints
from determined._run.events import EventFile
from determined._contract.records import Checkpoint
from determined._contract.run_info import RunInfo
info = RunInfo.from_environ(os.environ)
root = Path(info.checkpoint_dir)
if info.warm_start:
    print((root / info.checkpoints[0] / "weights").read_text())
    sys.exit()
with checkpoints.store(root, {"steps_completed": 1}) as (directory, uuid):
    (directory / "weights").write_text("heavy")
EventFile(Path(info.run_dir) / "events.jsonl", info.name).append(Checkpoint(uuid, 1, {"weights": 5}))
"""


SAVING = SCRIPT.replace("python3", sys.executable)


def from_checkpoint(uuid: str) -> str:
    return SAVING.replace("metric: loss", f"metric: loss, source_checkpoint_uuid: '{uuid}'")


def saved(tmp_path: Path, home: Home, host: Host) -> str:
    wanted = order(tmp_path, SAVES, config=SAVING)
    state = experiment.run_local(wanted, host, home, list[Event]().append)
    return checkpoints_of(home.experiment(state.header.id))[0].checkpoint.uuid


def test_a_local_run_starts_from_the_weights_of_another_experiment(
    tmp_path: Path, home: Home, host: Host
) -> None:
    uuid = saved(tmp_path, home, host)
    events: list[Event] = []
    again = order(tmp_path, SAVES, config=from_checkpoint(uuid))
    state = experiment.run_local(again, host, home, events.append)
    assert (state.state, RunOutput(1, 0, "stdout", "heavy") in events) == ("COMPLETED", True)
    assert verify(home.experiment(2).checkpoints / uuid) == []
    assert checkpoints_of(home.experiment(2)) == ()


@pytest.mark.usefixtures("no_controller")
def test_a_container_is_told_to_start_from_a_checkpoint_that_it_can_reach(
    tmp_path: Path, home: Home, host: Host
) -> None:
    uuid = saved(tmp_path, home, host)
    again = order(tmp_path, SAVES, config=from_checkpoint(uuid))
    engine = engine_with_base(again, host, home)
    submission = experiment.prepare(again, host, home, list[Event]().append, builder=engine)
    number = experiment.submit(submission, host, home, list[Event]().append, engine=engine)
    info = RunInfo.load(home.experiment(number).run(1, 0).path)
    assert (info.checkpoints, info.warm_start) == ((uuid,), True)
    (container,) = engine.containers.values()
    mounts = {mount.target: Path(mount.source) for mount in container.process.spec.mounts}
    assert verify(mounts[info.checkpoint_dir] / uuid) == []


def test_a_checkpoint_of_a_shared_directory_is_taken_from_there(
    tmp_path: Path, home: Home, host: Host
) -> None:
    uuid = saved(tmp_path, home, host)
    shared = tmp_path / "shared"
    shared.mkdir()
    (home.experiment(1).checkpoints / uuid).rename(shared / uuid)
    config = f"{from_checkpoint(uuid)[:-1]}, checkpoint_storage: {{type: shared_fs, host_path: {shared}}}}}"
    state = experiment.run_local(order(tmp_path, SAVES, config=config), host, home, list[Event]().append)
    assert state.state == "COMPLETED"


def test_a_checkpoint_that_cannot_be_had_is_said_before_there_is_an_experiment(
    tmp_path: Path, home: Home, host: Host
) -> None:
    uuid = saved(tmp_path, home, host)
    for name, cause in (("0b1c", "there is no checkpoint"), (uuid[:8], "not a full checkpoint UUID")):
        wanted = order(tmp_path, SAVES, config=from_checkpoint(name))
        with pytest.raises(ConfigError, match=cause):
            experiment.run_local(wanted, host, home, list[Event]().append)
    (home.experiment(1).checkpoints / uuid / "weights").write_text("light")
    wanted = order(tmp_path, SAVES, config=from_checkpoint(uuid))
    with pytest.raises(EngineError, match="is damaged"):
        experiment.run_local(wanted, host, home, list[Event]().append)
    assert [number for number in home.ids() if home.folder(number).exists] == [1]


# without a container


def test_nothing_can_be_included_in_a_local_run(tmp_path: Path, home: Home, host: Host) -> None:
    wanted = replace(order(tmp_path, ""), includes=(tmp_path,))
    with pytest.raises(ConfigError, match="not supported in a local run") as caught:
        experiment.run_local(wanted, host, home, list[Event]().append)
    assert "PYTHONPATH" in caught.value.hint
    assert home.ids() == ()


def test_a_local_experiment_is_held_before_it_can_be_seen(tmp_path: Path, home: Home, host: Host) -> None:
    def look(event: Event) -> None:
        if isinstance(event, ExperimentCreated):
            assert resume(home) == ()

    assert experiment.run_local(order(tmp_path, ""), host, home, look).state == "COMPLETED"


RUN_LOCAL = """
import sys
from pathlib import Path
from detbuild import experiment
from detbuild.config.parse import parse_config
from detbuild.store.home import Home
context, home, text = Path(sys.argv[1], "model"), Home.open(Path(sys.argv[2])), sys.argv[3]
order = experiment.SubmitRequest(config=parse_config(text), text=text, context_dir=context)
experiment.run_local(order, experiment.this_host({}), home, lambda event: None)
"""


def test_a_local_run_has_the_same_folder_and_events(tmp_path: Path, home: Home, host: Host) -> None:
    events: list[Event] = []
    state = experiment.run_local(order(tmp_path, "print('hello')"), host, home, events.append)
    assert (state.state, state.header.local) == ("COMPLETED", True)
    told = [e for e in events if isinstance(e, (RunStarted, RunOutput, RunEnded, ExperimentEnded))]
    assert told == [
        RunStarted(1, 0, "", ()),
        RunOutput(1, 0, "stdout", "hello"),
        RunEnded(1, 0, 0, "", False),
        ExperimentEnded(1, "COMPLETED", ""),
    ]
    assert (home.experiment(1).run(1, 0).path / "stdout.log").read_bytes() == b"hello\n"
    assert checkpoints_of(home.experiment(1)) == ()


def test_a_local_run_that_fails_is_restarted_like_a_container(tmp_path: Path, home: Home, host: Host) -> None:
    config = SCRIPT[:-1] + ", max_restarts: 2}"
    failing = order(tmp_path, "raise SystemExit(3)", config=config)
    state = experiment.run_local(failing, host, home, list[Event]().append)
    ended = [run.finished for run in state.trials[1].runs if run.finished]
    assert [(run.exit_code, run.retry) for run in ended] == [(3, True), (3, True), (3, False)]
    assert (state.state, state.why) == ("ERROR", f"{ended[-1].message}, after 2 restarts")


def test_the_users_variables_reach_a_local_run(tmp_path: Path, home: Home, host: Host) -> None:
    config = SCRIPT[:-1] + ", environment: {environment_variables: [GREETING=good day]}}"
    events: list[Event] = []
    wanted = order(tmp_path, "import os; print(os.environ['GREETING'])", config=config)
    experiment.run_local(wanted, host, home, events.append)
    assert RunOutput(1, 0, "stdout", "good day") in events


@pytest.mark.parametrize(("verb", "outcome"), [("cancel", "preempted"), ("kill", "killed")])
def test_a_local_run_can_be_ended_from_elsewhere(
    tmp_path: Path, home: Home, host: Host, verb: str, outcome: str
) -> None:
    def ask(event: Event) -> None:
        if isinstance(event, RunOutput):
            request(home, 1, verb)

    script = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    began = time.monotonic()
    state = experiment.run_local(order(tmp_path, script), host, home, ask)
    assert (state.state, state.trials[1].runs[0].finished.outcome) == ("CANCELED", outcome)  # type: ignore[union-attr]
    assert time.monotonic() - began < 20


def test_ctrl_c_lets_a_local_run_leave(tmp_path: Path, home: Home, host: Host) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, RunOutput):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    script = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    state = experiment.run_local(order(tmp_path, script), host, home, interrupt)
    assert (state.state, state.why) == ("CANCELED", "cancelled on request")


def test_a_local_run_whose_process_is_gone_is_settled(tmp_path: Path, home: Home, host: Host) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "train.py").write_text("import time; time.sleep(60)")
    runner = subprocess.Popen([sys.executable, "-c", RUN_LOCAL, str(tmp_path), str(home.path), SCRIPT])
    deadline = time.monotonic() + 20
    while not (home.folder(1).run(1, 0).path / "events.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    runner.kill()
    runner.wait()
    assert resume(home) == ()  # its supervisor lives, and with it the experiment
    supervisor = holder(home.folder(1).lock_file)
    assert supervisor is not None
    for process in _children_with(str(home.folder(1).run(1, 0).path)):
        os.kill(process, signal.SIGKILL)
    while holder(home.folder(1).lock_file) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resume(home) == (1,)
    state = load(home.experiment(1))
    assert (state.state, state.trials[1].runs[0].finished.outcome) == ("ERROR", "lost")  # type: ignore[union-attr]


def _children_with(run_dir: str) -> list[int]:
    """Processes whose environment names the run folder."""
    wanted = f"DETBUILD_RUN_DIR={run_dir}".encode()
    environs = Path("/proc").glob("[0-9]*/environ")
    return [int(path.parent.name) for path in environs if wanted in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


RAISING = """
class Search:
    def __init__(self, about):
        pass
    def ask(self):
        raise KeyError("no such file of points")
    def tell(self, trial, time, metric):
        return None
"""
CUSTOM = (
    "{name: s, entrypoint: [python3, train.py], resources: {slots_per_trial: 0}, "
    "searcher: {name: custom, metric: loss, hook: 'mine:Search', max_length: {batches: 1}}}"
)


@pytest.mark.usefixtures("no_controller")
@pytest.mark.parametrize("local", [False, True])
def test_a_search_that_cannot_begin_is_refused_at_submission(
    tmp_path: Path, home: Home, host: Host, local: bool
) -> None:
    wanted = order(tmp_path, "", config=CUSTOM)
    (tmp_path / "model" / "mine.py").write_text(RAISING)
    engine = engine_with_base(wanted, host, home)
    ignore = list[Event]().append

    def begin() -> None:
        if local:
            experiment.run_local(wanted, host, home, ignore)
        else:
            submission = experiment.prepare(wanted, host, home, ignore, builder=engine)
            experiment.submit(submission, host, home, ignore, engine=engine)

    with pytest.raises(SearchError, match="no such file of points"):
        begin()
    assert (list(home.ids()), engine.containers) == ([], {})
