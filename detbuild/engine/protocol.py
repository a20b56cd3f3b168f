"""The interface to a container engine: what builds images, and what runs containers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.events import Emit
    from detbuild.image.plan import ImagePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A bind mount. The source must exist; the engine never creates it."""

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
    """A container to create. Its name follows from experiment, trial and run, so there is never a second."""

    name: str
    image: str  # always an id: tags move
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()  # replaces the image's own, which is the harness
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""  # "uid:gid"
    gpus: tuple[str, ...] = ()  # ids: "0", a GPU-UUID, or a CDI name such as "nvidia.com/gpu=0"
    gpu_driver: Literal["nvidia", "cdi"] = "nvidia"
    shm_size: int = 4 << 30
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ("ALL",)
    ports: tuple[int, ...] = ()  # published on ports that the engine chooses
    network: str = "bridge"
    pids_limit: int = 4096
    memory: int = 0  # limit in bytes, without swap; 0 for no limit
    cpus: float = 0.0  # cores; 0 for no limit
    read_only_root: bool = False
    scratch: tuple[str, ...] = ()  # directories of a read-only root that are writable, on the engine's disk
    tmpfs: tuple[str, ...] = ()
    stdin: bool = False  # open for the first client that attaches, closed when it detaches
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
    error: str = ""  # the engine's message if it could not start the container
    memory: int = 0  # limit in bytes; 0 for no limit, or when only listed
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in {"exited", "dead"}

    @property
    def lives(self) -> bool:
        """Whether it has a process or may get one; a container that is being removed has none."""
        return not self.ended and self.status != "removing"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    id: str  # stable as long as its containers exist; "" if unknown
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


class Builder(Protocol):
    """Makes and keeps images. Methods raise EngineError if it cannot be reached, fails or times out."""

    def image_id(self, reference: str) -> str | None:
        """Return the id of a local image, or None; an unchanged image skips the build."""

    def image_labels(self, reference: str) -> Mapping[str, str]:
        """Return the labels of a local image; raise EngineError if it does not exist."""

    def find_images(self, label: str) -> tuple[ImageState, ...]:
        """List all images with the label, newest first."""

    def pull(self, reference: str, emit: Emit, *, credentials: Mapping[str, str] | None = None) -> str:
        """Pull an image and return its id.

        Args:
            reference: The image to pull.
            emit: Receives progress.
            credentials: Registry credentials with the keys of Docker's API (`username`, `password`,
                `serveraddress`, ...). If absent, or for a registry other than the image's, those of the
                caller's docker config are used.
        """

    def build(self, plan: ImagePlan, emit: Emit) -> str:
        """Build, tag and return the image's id; raise BuildError when a step fails.

        An interrupted build leaves neither tag nor container.
        """

    def import_image(self, rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        """Import a tar file of a root file system as an image of one layer and return its id."""

    def remove_image(self, reference: str) -> None:
        """Remove a tag or image if it exists."""


class Containers(Protocol):
    """Runs containers of images that it has. Methods raise EngineError like those of `Builder`."""

    def info(self) -> EngineInfo: ...

    def create(self, spec: ContainerSpec) -> str:
        """Create the container and return its id, or the id of the existing one."""

    def start(self, container: str) -> None:
        """Start the container unless it runs or has ended."""

    def inspect(self, container: str) -> ContainerState | None:
        """Return the state of a container by id or name; None if it does not exist."""

    def wait(self, container: str, *, timeout: float) -> ContainerState | None:
        """Wait up to `timeout` seconds for its end; None if it still runs. LookupError if it was removed."""

    def output_tail(self, container: str, lines: int) -> tuple[str, ...]:
        """Return the last lines of output that the engine kept; none if the container was removed."""

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        """List all containers, running or not, with the labels; an empty value matches the key alone.

        For a container that has not ended, only `inspect` tells whether the engine failed to start it.
        """

    def signal(self, container: str, signal: str) -> None:
        """Send a signal ("SIGTERM") unless the container has ended or was removed."""

    def remove(self, container: str) -> None:
        """Kill and remove the container if it exists."""


class Engine(Builder, Containers, Protocol):
    """A container engine, which is both."""

    def close(self) -> None: ...
