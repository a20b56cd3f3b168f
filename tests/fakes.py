"""Engines that live in memory: they have state, can be asked about it, and fail or crash when told to."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detbuild.engine.errors import engine_error
from detbuild.engine.protocol import ContainerSpec, ContainerState, EngineInfo, ImageState
from detbuild.errors import BuildError, EngineError
from detbuild.events import BuildStep, ContextSent, Emit, ImagePulling

if TYPE_CHECKING:
    from detbuild.image.plan import ImagePlan

RUN_DIR_TARGET = "/run/detbuild/run"
AWAY = "cannot reach Docker Engine (the fake is away)"
HINT = "start it, or set DOCKER_HOST to where it runs"


class Crash(BaseException):
    """The process under test dies here: kill -9, which no `except Exception` may take for an error."""


@dataclass
class Effects:
    """Counts what changes the world, and lets a test die before or after the N-th of them (counted from 1).

    One counter may be shared by the engine and by whatever else has effects (a journal, a store):
    `with effects("write intent"): ...`.
    """

    crash_at: int = 0  # 0: never
    crash_when: Literal["before", "after"] = "before"
    done: list[str] = field(default_factory=list)
    count: int = 0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.count += 1
        here = self.count == self.crash_at
        if here and self.crash_when == "before":
            raise Crash(f"before effect {self.count}: {name}")
        yield
        self.done.append(name)
        if here:
            raise Crash(f"after effect {self.count}: {name}")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended."""

    code: int = 0
    oom_killed: bool = False
    output: tuple[str, ...] = ()  # lines that it printed itself, past the harness


@dataclass
class Process:
    """What a program is given: its container's spec and the signals that it got so far."""

    spec: ContainerSpec
    signals: list[str] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        """The host's side of the mounted run folder."""
        return next(Path(mount.source) for mount in self.spec.mounts if mount.target == RUN_DIR_TARGET)


# A program that returns an Exit has ended when `start` returns. One that is a generator runs until it returns
# its Exit; every look at the container (inspect, wait, find) lets it go on to its next `yield`.
Program = Callable[[Process], Exit | Generator[None, None, Exit]]


def succeed(process: Process) -> Exit:
    return Exit(0)


def run_for_ever(process: Process) -> Generator[None, None, Exit]:
    """Ends only when it is signalled, as a shell's `sleep` with a handler would."""
    while "SIGTERM" not in process.signals:
        yield
    return Exit(143)


@dataclass
class FakeContainer:
    id: str
    process: Process
    status: Literal["created", "running", "exited"] = "created"
    exit: Exit = field(default_factory=Exit)
    error: str = ""
    program: Generator[None, None, Exit] | None = None
    frozen: int = 0  # looks at it that are left while it does not run

    @property
    def state(self) -> ContainerState:
        return ContainerState(
            id=self.id,
            name=self.process.spec.name,
            status=self.status,
            exit_code=self.exit.code,
            oom_killed=self.exit.oom_killed,
            error=self.error,
            labels=self.process.spec.labels,
        )

    def end(self, exit_: Exit) -> None:
        if self.program is not None:
            self.program.close()
        self.status, self.exit, self.program = "exited", exit_, None

    def run(self, program: Program) -> None:
        self.status = "running"
        ended = program(self.process)
        if isinstance(ended, Exit):
            self.end(ended)
        else:
            self.program = ended
            self.step()

    def step(self) -> None:
        self.frozen = max(0, self.frozen - 1)
        if self.program is None or self.frozen:
            return
        try:
            next(self.program)
        except StopIteration as stop:
            self.end(stop.value)


@dataclass
class FakeImage:
    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)


INFO = EngineInfo(
    id="fake",
    name="memory",
    version="28.5.2",
    api_version="1.51",
    storage_driver="overlay2",
    data_root="/var/lib/docker",
    cpus=8,
    memory=64 << 30,
    architecture="x86_64",
    rootless=False,
    live_restore=False,
    log_driver="json-file",
    cgroup_version="2",
    runtimes=("runc",),
    cdi_devices=(),
)


class FakeEngine:
    """An Engine in memory. Survives a `Crash` of its caller, as the real one does.

    A test may look at `images` and `containers` (by id), `tags`, `built` plans and `effects.done`,
    and set `program`, `engine_info`, `registry`, `build_error`, `start_error` and the faults below.
    """

    def __init__(
        self, program: Program = succeed, *, effects: Effects | None = None, info: EngineInfo = INFO
    ) -> None:
        self.program = program
        self.effects = effects if effects is not None else Effects()
        self.engine_info = info
        self.images: dict[str, FakeImage] = {}  # by id
        self.tags: dict[str, str] = {}  # tag -> id
        self.registry: dict[str, FakeImage] = {}  # what `pull` finds
        self.containers: dict[str, FakeContainer] = {}
        self.built: list[ImagePlan] = []
        self.credentials: dict[str, str] = {}  # of the last pull
        self.build_error: BuildError | None = None
        self.start_error = ""
        self.closed = False
        self._away = 0.0  # calls that still fail
        self._lock = threading.RLock()

    # faults

    def go_away(self, calls: float = float("inf")) -> None:
        """Raise EngineError for the next `calls` calls, or until `come_back`. Containers go on running."""
        self._away = calls

    def come_back(self) -> None:
        self._away = 0

    def lose_container(self, container: str) -> None:
        """As `docker rm -f` by somebody else."""
        del self.containers[self._container(container).id]

    def lose_image(self, reference: str) -> None:
        """As `docker rmi -f` by somebody else."""
        image = self._image(reference)
        if image is not None:
            del self.images[image.id]
            self.tags = {tag: id_ for tag, id_ in self.tags.items() if id_ != image.id}

    def end(self, container: str, code: int, *, oom_killed: bool = False) -> None:
        """End a container from outside: 137 for a SIGKILL, 255 for a host that went down."""
        self._container(container).end(Exit(code, oom_killed))

    def start_again(self, container: str) -> None:
        """As `docker restart` or `docker start` by somebody else, at once or after it has ended."""
        found = self._container(container)
        if found.status == "running":
            found.end(Exit(137))
        found.process = Process(found.process.spec)
        found.run(self.program)

    def freeze(self, container: str, looks: int) -> None:
        """As `docker pause`, for so many looks at it."""
        self._container(container).frozen = looks

    def reboot(self) -> None:
        """The host went down and came back."""
        for container in self.containers.values():
            if container.status == "running":
                container.end(Exit(255))

    def add_image(self, tag: str, labels: Mapping[str, str] | None = None) -> str:
        """Put an image there without building it; return its id."""
        return self._tag(tag, FakeImage(_digest(tag), dict(labels or {})))

    # the Engine protocol

    def info(self) -> EngineInfo:
        with self._call():
            return self.engine_info

    def image_id(self, reference: str) -> str | None:
        with self._call():
            image = self._image(reference)
            return image.id if image else None

    def image_labels(self, reference: str) -> Mapping[str, str]:
        with self._call():
            return self._present(reference).labels

    def find_images(self, label: str) -> tuple[ImageState, ...]:
        with self._call():
            made_of = [self._image(c.process.spec.image) for c in self.containers.values()]
            return tuple(
                ImageState(
                    id=image.id,
                    tags=tuple(tag for tag, id_ in self.tags.items() if id_ == image.id),
                    created=image.created,
                    size=1 << 20,
                    containers=sum(used is image for used in made_of),
                    labels=image.labels,
                )
                for image in sorted(self.images.values(), key=lambda one: one.created, reverse=True)
                if label in image.labels
            )

    def pull(self, reference: str, emit: Emit, *, credentials: Mapping[str, str] | None = None) -> str:
        with self._call():
            self.credentials = dict(credentials or {})
            if reference not in self.registry:
                raise EngineError(f"cannot pull {reference}: not found", hint="check the name")
            with self.effects(f"pull {reference}"):
                emit(ImagePulling(reference, "done"))
                return self._tag(reference, self.registry[reference])

    def build(self, plan: ImagePlan, emit: Emit) -> str:
        with self._call():
            emit(BuildStep("FROM", cached=False, seconds=None))
            if self.build_error is not None:
                raise self.build_error
            with self.effects(f"build {plan.tag}"):
                trees = plan.trees.values()
                emit(ContextSent(sum(tree.files for tree in trees), sum(tree.size for tree in trees)))
                emit(BuildStep("FROM", cached=False, seconds=0.0))
                self.built.append(plan)
                content = "".join(tree.digest for tree in trees)
                return self._tag(plan.tag, FakeImage(_digest(plan.dockerfile + content), plan.labels))

    def create(self, spec: ContainerSpec) -> str:
        with self._call():
            there = self._find(spec.name)
            if there is not None:
                if there.process.spec.labels != spec.labels:
                    raise EngineError(f"the container name {spec.name} is in use by another container")
                return there.id
            self._present(spec.image)
            for mount in spec.mounts:
                if not Path(mount.source).exists():
                    raise EngineError(f"bind source path does not exist: {mount.source}")
            with self.effects(f"create {spec.name}"):
                container = FakeContainer(_digest(f"{spec.name} {self.effects.count}")[7:], Process(spec))
                self.containers[container.id] = container
            return container.id

    def start(self, container: str) -> None:
        with self._call():
            found = self._container(container)
            if found.status != "created":
                return
            if self.start_error:
                found.error = self.start_error
                raise engine_error(self.start_error)
            with self.effects(f"start {found.process.spec.name}"):
                found.run(self.program)

    def inspect(self, container: str) -> ContainerState | None:
        with self._call():
            found = self._find(container)
            if found is None:
                return None
            found.step()
            return found.state

    def wait(self, container: str, *, timeout: float) -> ContainerState | None:
        with self._call():
            found = self._find(container)
            if found is None:
                raise LookupError(container)
            found.step()
            if found.state.ended:
                return found.state
        time.sleep(min(timeout, 0.001))
        return None

    def output_tail(self, container: str, lines: int) -> tuple[str, ...]:
        with self._call():
            found = self._find(container)
            return found.exit.output[-lines:] if found else ()

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        with self._call():
            found = [c for c in self.containers.values() if _carries(c.process.spec.labels, labels)]
            for container in found:
                container.step()
            return tuple(container.state for container in found)

    def signal(self, container: str, signal: str) -> None:
        with self._call():
            found = self._find(container)
            if found is None or found.status != "running":
                return
            with self.effects(f"signal {found.process.spec.name} {signal}"):
                found.process.signals.append(signal)
                if signal == "SIGKILL":
                    found.end(Exit(137))

    def remove(self, container: str) -> None:
        with self._call():
            found = self._find(container)
            if found is None:
                return
            with self.effects(f"remove {found.process.spec.name}"):
                found.end(Exit(137))
                del self.containers[found.id]

    def remove_image(self, reference: str) -> None:
        with self._call():
            image = self._image(reference)
            if image is None:
                return
            with self.effects(f"remove image {reference}"):
                self.tags.pop(reference, None)
                if reference == image.id or image.id not in self.tags.values():
                    self.lose_image(image.id)

    def import_image(self, rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        with self._call(), self.effects(f"import {tag}"):
            content = Path(rootfs_tar).read_bytes()
            return self._tag(tag, FakeImage(_digest(repr((content, changes)))))

    def close(self) -> None:
        self.closed = True

    # state

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._lock:
            if self._away > 0:
                self._away -= 1
                raise EngineError(AWAY, hint=HINT)
            yield

    def _tag(self, tag: str, image: FakeImage) -> str:
        self.images[image.id] = image
        self.tags[tag] = image.id
        return image.id

    def _image(self, reference: str) -> FakeImage | None:
        name = reference if ":" in reference else f"{reference}:latest"
        return self.images.get(self.tags.get(name, reference))

    def _present(self, reference: str) -> FakeImage:
        image = self._image(reference)
        if image is None:
            raise EngineError(f"no such image: {reference}", hint="build it again")
        return image

    def _find(self, container: str) -> FakeContainer | None:
        by_name = {c.process.spec.name: c for c in self.containers.values()}
        return self.containers.get(container) or by_name.get(container)

    def _container(self, container: str) -> FakeContainer:
        found = self._find(container)
        if found is None:
            raise EngineError(f"no such container: {container}")
        return found


def gpus(*names: str) -> EngineInfo:
    """Engine info of a host with these CDI devices ("0", "1")."""
    return replace(INFO, cdi_devices=tuple(f"nvidia.com/gpu={name}" for name in names))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(key in labels and value in {"", labels[key]} for key, value in wanted.items())
