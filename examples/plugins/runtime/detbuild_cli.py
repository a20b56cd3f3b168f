"""The runtime `cli`: containers by the command line of Docker, or of an engine with the same commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.host import RuntimeConfig
from detbuild.config.yaml import KeyPath
from detbuild.errors import ConfigError, EngineError
from detbuild.events import Warned
from detbuild.runtime.docker import container_paths
from detbuild.runtime.labels import experiment_labels, run_labels
from detbuild.runtime.protocol import (
    Demand,
    Observation,
    Phase,
    Placement,
    Reason,
    Refused,
    RunKey,
    RunPaths,
    RunSpec,
    Signal,
    require_one_host,
)
from detbuild.store.experiment_dir import ExperimentFolder

_PHASES = {"created": Phase.CREATED, "exited": Phase.ENDED, "dead": Phase.ENDED}


class Config(RuntimeConfig):
    kind: Literal["cli"] = "cli"
    """Containers by the command line of an engine."""
    command: str = "docker"
    """The engine's command; it must have the images that Docker Engine builds."""


def open(config: Config) -> CommandLine:
    return CommandLine(config.command)


class CommandLine:
    """A runtime for trials without GPUs. A container is found by its name, after a crash too."""

    kind: Literal["container"] = "container"
    observe_interval = 1.0

    def __init__(self, command: str) -> None:
        self.command = command

    def check(self, config: ExperimentConfig, place: Callable[[KeyPath], str]) -> tuple[Warned, ...]:
        if config.resources.slots_per_trial:
            at = place(("resources", "slots_per_trial"))
            raise ConfigError(f"{at}: the runtime cli has no GPUs", hint="set it to 0")
        return ()

    def paths(self, config: ExperimentConfig, folder: ExperimentFolder, key: RunKey) -> RunPaths:
        return container_paths(config, folder)

    def render(self, spec: RunSpec) -> tuple[str, ...]:
        require_one_host(spec)
        labels = run_labels(spec.key, spec.user, spec.weight, gpus=(), cpu_slots=1)
        mounts = (
            f"type=bind,source={one.source},target={one.target}{',readonly' if one.read_only else ''}"
            for one in spec.mounts
        )
        return (
            *("--name", spec.key.name, "--user", spec.user, "--network", spec.network),
            *("--shm-size", str(spec.shm_size), "--cap-drop", "ALL"),
            *(("--memory", str(spec.memory)) if spec.memory else ()),
            *(("--cpus", str(spec.cpus)) if spec.cpus else ()),
            *(text for name in spec.cap_add for text in ("--cap-add", name)),
            *(text for name, value in spec.env.items() for text in ("--env", f"{name}={value}")),
            *(text for name, value in labels.items() for text in ("--label", f"{name}={value}")),
            *(text for mount in mounts for text in ("--mount", mount)),
            spec.image,
        )

    @contextmanager
    def place(self, demand: Demand) -> Iterator[Placement]:
        yield Placement()  # a cluster would queue the run itself

    def create(self, spec: RunSpec) -> str | Refused:
        found = self.inspect(spec.key)
        if found is not None:
            return str(found["Id"])
        try:
            return self.call("create", *self.render(spec)).strip()
        except EngineError as error:
            return Refused(error)

    def start(self, key: RunKey) -> bool | Refused:
        found = self.inspect(key)
        if found is None:
            return Refused(EngineError(f"{key.name} was not created"))
        if found["State"]["Status"] == "created":
            try:
                self.call("start", key.name)
            except EngineError as error:
                return Refused(error)
        return True

    def observe(self, key: RunKey) -> Observation:
        found = self.inspect(key)
        if found is None:
            return Observation(phase=Phase.GONE, reason=Reason.LOST)
        state = found["State"]
        phase = _PHASES.get(state["Status"], Phase.RUNNING)
        if phase is not Phase.ENDED:
            return Observation(phase=phase)
        reason = Reason.OUT_OF_MEMORY if state.get("OOMKilled") else Reason.NONE
        message = state.get("Error", "")
        return Observation(phase=phase, reason=reason, message=message, exit_code=state["ExitCode"])

    def signal(self, key: RunKey, signal: Signal) -> None:
        if self.observe(key).phase is Phase.RUNNING:
            self.call("kill", "--signal", signal, key.name)

    def output_tail(self, key: RunKey, lines: int) -> tuple[str, ...]:
        return tuple(self.call("logs", "--tail", str(lines), key.name).splitlines())

    def remove(self, home_id: str, experiment_id: int, *, keep: Collection[RunKey] = ()) -> None:
        labels = experiment_labels(home_id, experiment_id).items()
        filters = (text for name, value in labels for text in ("--filter", f"label={name}={value}"))
        found = self.call("ps", "--all", "--format", "{{.Names}}", *filters).split()
        gone = [name for name in found if name not in {key.name for key in keep}]
        if gone:
            self.call("rm", "--force", *gone)

    def close(self) -> None: ...

    def inspect(self, key: RunKey) -> dict[str, Any] | None:
        try:
            found: list[dict[str, Any]] = json.loads(self.call("container", "inspect", key.name))
        except EngineError as error:
            if "no such container" in str(error).lower():
                return None
            raise
        return found[0]

    def call(self, *arguments: str) -> str:
        """Run a command of the engine; raise EngineError with its words if it fails."""
        try:
            done = subprocess.run([self.command, *arguments], capture_output=True, text=True, check=False)
        except OSError as error:
            raise EngineError(f"cannot run {self.command}: {error.strerror}") from error
        if done.returncode:
            raise EngineError(f"{self.command} {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
