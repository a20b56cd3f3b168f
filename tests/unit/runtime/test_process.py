from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.controller.lease import lease
from detbuild.runtime.process import CallRuntime, ProcessRuntime, end_processes
from detbuild.runtime.protocol import Phase, RunSpec, Waiting
from detbuild.store.home import Home
from detbuild.testing.runtime import RuntimeContract
from determined._contract.run_info import RunInfo
from tests.faults.training import CONFIG, submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.runtime.protocol import RunKey, Runtime
    from detbuild.store.experiment_dir import ExperimentFolder

PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("up", flush=True)
time.sleep({seconds})
sys.exit({exit_code})
"""


class OneAtATimeContract(RuntimeContract):
    """Runs of a real experiment folder, of which only one goes at a time."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> ExperimentFolder:
        self.experiment = submit(Home.open(tmp_path / "home"), "")
        self.home_id, self.experiment_id = Home.open(tmp_path / "home").id, self.experiment.id
        return self.experiment

    def spec(self, key: RunKey, *, seconds: float, exit_code: int) -> RunSpec:
        run_dir = self.experiment.run(key.trial_id, key.run).path
        info = RunInfo(
            experiment_id=key.experiment_id,
            trial_id=key.trial_id,
            run=key.run,
            trial_seed=0,
            slots=0,
            entrypoint=(sys.executable, "-c", PROGRAM.format(seconds=seconds, exit_code=exit_code)),
            run_dir=str(run_dir),
            context_dir=str(self.experiment.path),
            context_name="context",
            checkpoint_dir=str(self.experiment.checkpoints),
            hparams={"seconds": seconds, "exit_code": exit_code},
        )
        if not run_dir.exists():
            self.experiment.prepare_run(info)
        env = {"DETBUILD_RUN_DIR": str(run_dir)}
        return RunSpec(key=key, info=info, image="", user="0:0", env=env)

    def test_another_run_waits_until_this_one_has_ended(self, runtime: Runtime) -> None:
        first = self.created(runtime).key
        second = self.demand(self.key(run=1))
        with runtime.place(second) as placed:
            assert isinstance(placed, Waiting)
        self.start(runtime, first)
        self.ended(runtime, first)
        with runtime.place(second) as placed:
            assert not isinstance(placed, Waiting)

    def test_a_run_sees_the_folders_of_this_host(self, runtime: Runtime) -> None:
        paths = runtime.paths(config_from_mapping(CONFIG), self.experiment, self.key(run=2))
        own = self.experiment
        assert (paths.run_dir, paths.checkpoint_dir) == (str(own.run(1, 2).path), str(own.checkpoints))

    def test_limits_of_a_container_are_named_before_a_run(self, runtime: Runtime) -> None:
        config = config_from_mapping({**CONFIG, "resources": {"slots_per_trial": 0, "memory": "1g"}})
        (warning,) = runtime.check(config, lambda path: "")
        assert "no container: resources.memory" in warning.message


class TestProcesses(OneAtATimeContract):
    @pytest.fixture
    def runtime(self, folder: ExperimentFolder) -> Iterator[ProcessRuntime]:
        environ = {"PATH": os.environ["PATH"], "HOME": "/"}
        with (
            lease(folder.lock_file) as held,
            closing(ProcessRuntime(folder, environ, lease_descriptor=held)) as runtime,
        ):
            yield runtime

    def test_a_second_sigkill_needs_no_supervisor(self, runtime: ProcessRuntime) -> None:
        spec = self.created(runtime, seconds=600)
        self.start(runtime, spec.key)
        self.until_up(spec)
        (process,) = runtime._processes.values()
        os.kill(process.pid, signal.SIGSTOP)
        runtime.signal(spec.key, "SIGKILL")
        assert runtime.observe(spec.key).phase is Phase.RUNNING
        runtime.signal(spec.key, "SIGKILL")
        assert runtime.observe(spec.key).exit_code == 137
        assert processes_of(spec.info.run_dir) == []

    def test_a_supervisor_that_died_leaves_no_process(self, runtime: ProcessRuntime) -> None:
        spec = self.created(runtime, seconds=600)
        self.start(runtime, spec.key)
        self.until_up(spec)
        (process,) = runtime._processes.values()
        process.kill()
        assert self.ended(runtime, spec.key).exit_code == 137
        assert processes_of(spec.info.run_dir) == []

    def test_a_runtime_that_is_closed_leaves_no_process(self, runtime: ProcessRuntime) -> None:
        spec = self.created(runtime, seconds=600)
        self.start(runtime, spec.key)
        self.until_up(spec)
        runtime.close()
        assert processes_of(spec.info.run_dir) == []

    def test_processes_of_an_earlier_controller_are_ended_when_they_are_looked_for(
        self, runtime: ProcessRuntime, folder: ExperimentFolder
    ) -> None:
        spec = self.created(runtime, seconds=600)
        self.start(runtime, spec.key)
        self.until_up(spec)
        seen = ProcessRuntime(folder).observe(spec.key)
        assert (seen.phase, seen.message) == (Phase.GONE, "detbuild ended before it")
        assert processes_of(spec.info.run_dir) == []

    def test_a_run_that_ends_while_it_is_observed_has_its_exit_code(
        self, folder: ExperimentFolder, runtime: ProcessRuntime
    ) -> None:
        class Ending(ProcessRuntime):
            looks = 0

            def _phase(self, key: RunKey) -> Phase:
                self.looks += 1
                if self.looks == 1:
                    return Phase.RUNNING
                self._processes[key].wait()
                return super()._phase(key)

        spec = self.created(runtime, exit_code=3)
        ending = Ending(folder, dict(os.environ), lease_descriptor=runtime._lease)
        ending.create(spec)
        ending.start(spec.key)
        seen = [ending.observe(spec.key) for _ in range(2)]
        assert [(one.phase, one.exit_code) for one in seen] == [(Phase.RUNNING, None), (Phase.ENDED, 3)]

    def until_up(self, spec: RunSpec) -> None:
        output = Path(spec.info.run_dir) / "stdout.log"
        while not output.exists() or not output.read_bytes():
            time.sleep(0.02)


class TestCalls(OneAtATimeContract):
    """The thread that serves the calls is another one here: this one has the handler of the signal."""

    @pytest.fixture
    def runtime(self, folder: ExperimentFolder) -> Iterator[CallRuntime]:
        stop = threading.Event()
        runtime = CallRuntime(folder)

        def train(info: RunInfo) -> int:
            ended = stop.wait(float(str(info.hparams["seconds"])))
            stop.clear()
            return 143 if ended else int(str(info.hparams["exit_code"]))

        server = threading.Thread(target=runtime.serve, args=(train, stop.clear))
        server.start()
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        yield runtime
        stop.set()
        runtime.close()
        server.join()
        signal.signal(signal.SIGTERM, before)


def test_sigterm_waits_for_a_handler(tmp_path: Path) -> None:
    runtime = CallRuntime(submit(Home.open(tmp_path), ""))
    contract = TestCalls()
    contract.experiment = runtime._folder
    spec = contract.created(runtime)
    runtime.start(spec.key)
    received: list[int] = []

    def train(_: RunInfo) -> int:
        runtime.signal(spec.key, "SIGTERM")  # would end this process
        before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
        try:
            runtime.observe(spec.key)
            runtime.observe(spec.key)
            runtime.signal(spec.key, "SIGTERM")
        finally:
            signal.signal(signal.SIGTERM, before)
        runtime.close()
        return 0

    runtime.serve(train, list[int]().clear)
    assert received == [signal.SIGTERM, signal.SIGTERM]


def test_a_call_that_raises_ends_the_service_and_the_run(tmp_path: Path) -> None:
    runtime = CallRuntime(submit(Home.open(tmp_path), ""))
    contract = TestCalls()
    contract.experiment = runtime._folder
    spec = contract.created(runtime)
    runtime.start(spec.key)

    def train(_: RunInfo) -> int:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        runtime.serve(train, list[int]().clear)
    assert runtime.observe(spec.key).exit_code == 1


def test_only_the_processes_of_that_run_are_ended(tmp_path: Path) -> None:
    runs = [str(tmp_path / name) for name in ("1-0", "1-01")]
    sleepers = [
        subprocess.Popen(["sleep", "600"], env={"DETBUILD_RUN_DIR": run_dir, "PATH": os.environ["PATH"]})
        for run_dir in runs
    ]
    try:
        end_processes(runs[0])
        assert sleepers[0].wait() == -signal.SIGKILL
        assert processes_of(runs[1]) == [sleepers[1].pid]
    finally:
        sleepers[1].kill()
        sleepers[1].wait()


def processes_of(run_dir: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"DETBUILD_RUN_DIR={run_dir}".encode() in variables and state != "Z":
            found.append(int(process.name))
    return found
