"""All that detbuild asks of a container engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.events import Emit
    from detbuild.image.plan import ImagePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A bind mount. The source must exist; it is never made by the engine."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"


@dataclass(frozen=True, slots=True)
class Device:
    host_path: str
    container_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerSpec:
    """One container, fully decided. Its name is fixed by experiment, trial and run, so there is no second."""

    name: str
    image: str  # always an id: tags move
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()  # in the place of the image's own, which is the harness
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""  # "uid:gid"
    gpus: tuple[str, ...] = ()  # ids: "0", a GPU-UUID, or a CDI name such as "nvidia.com/gpu=0"
    gpu_driver: Literal["nvidia", "cdi"] = "nvidia"
    shm_size: int = 4 << 30
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("ALL",)
    ports: tuple[int, ...] = ()  # published on ports of the engine's choice
    network: str = "bridge"
    pids_limit: int = 4096
    memory: int = 0  # bytes that it may use, without swap; 0 for no limit
    cpus: float = 0.0  # cores; 0 for no limit
    read_only_root: bool = False
    scratch: tuple[str, ...] = ()  # directories of a read-only root that are writable, on the engine's disk
    tmpfs: tuple[str, ...] = ()
    stdin: bool = False  # open for whoever attaches first, closed when they leave
    terminal: bool = False
    stop_timeout: int = 3600  # seconds between SIGTERM and SIGKILL when the engine stops the container
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerState:
    id: str
    name: str
    status: Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""  # the engine's own words when it could not start the container
    memory: int = 0  # bytes that it may use; 0 for no limit, or when only listed
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in {"exited", "dead"}

    @property
    def lives(self) -> bool:
        """It has a process or may get one; the engine says "removing" only of what has none any more."""
        return not self.ended and self.status != "removing"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    id: str  # kept by the engine for as long as it keeps its containers; "" for one that does not say
    name: str  # of its host
    version: str
    api_version: str
    storage_driver: str
    data_root: str
    cpus: int
    memory: int  # bytes
    architecture: str  # "x86_64"
    rootless: bool
    live_restore: bool
    log_driver: str
    cgroup_version: str
    runtimes: tuple[str, ...]
    cdi_devices: tuple[str, ...]  # fully qualified: "nvidia.com/gpu=0"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageState:
    id: str
    tags: tuple[str, ...]
    created: float  # seconds since the epoch
    size: int  # bytes that no other image shares
    containers: int  # running or not, that were made of it
    labels: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """Every method raises EngineError when the engine is away, refuses, or does not answer in time."""

    def info(self) -> EngineInfo: ...

    def image_id(self, reference: str) -> str | None:
        """The id of a local image, or None; asked first, so that what is unchanged skips the build."""

    def image_labels(self, reference: str) -> Mapping[str, str]:
        """Labels of a local image; raise EngineError when it is not there."""

    def find_images(self, label: str) -> tuple[ImageState, ...]:
        """All images that carry the label, the newest first."""

    def pull(self, reference: str, emit: Emit, *, credentials: Mapping[str, str] | None = None) -> str:
        """Pull and return the id.

        Args:
            reference: Of the image.
            emit: Told how far it is.
            credentials: Of a registry, under the names of Docker's API (`username`, `password`,
                `serveraddress`, ...). When they are none, or for another registry than the image's, those of
                the caller's docker config are used.
        """

    def build(self, plan: ImagePlan, emit: Emit) -> str:
        """Build, tag and return the image's id; raise BuildError when a step fails.

        An interrupted build leaves neither tag nor container.
        """

    def create(self, spec: ContainerSpec) -> str:
        """Create the container and return its id; the same one again when it is there already."""

    def start(self, container: str) -> None:
        """Start it; nothing happens when it runs or has ended already."""

    def inspect(self, container: str) -> ContainerState | None:
        """State by id or name; None when there is no such container."""

    def wait(self, container: str, *, timeout: float) -> ContainerState | None:
        """Wait up to `timeout` seconds for its end; None when it still runs. LookupError when it is gone."""

    def output_tail(self, container: str, lines: int) -> tuple[str, ...]:
        """The last lines that it printed, as far as the engine kept them; none when it is gone."""

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        """All containers, running or not, that carry the labels; an empty value asks for the key alone.

        Only `inspect` knows of one that has not ended whether the engine failed to start it.
        """

    def signal(self, container: str, signal: str) -> None:
        """Send a signal ("SIGTERM"); nothing happens when it has ended or is gone."""

    def remove(self, container: str) -> None:
        """Kill and remove; nothing happens when it is gone."""

    def remove_image(self, reference: str) -> None:
        """Remove a tag or image; nothing happens when it is gone."""

    def import_image(self, rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        """Make an image of one layer from a tar file of a root file system and return its id."""

    def close(self) -> None: ...
