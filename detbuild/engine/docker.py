"""The Engine protocol on Docker Engine: its calls, and the bodies that they send and receive.

The functions below the class translate a ContainerSpec to the engine's API, and the engine's responses to
ContainerState, ImageState and EngineInfo.
"""

from __future__ import annotations

import json
from contextlib import closing, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from detbuild.engine.errors import engine_error
from detbuild.engine.http import EngineClient
from detbuild.engine.protocol import ContainerState, EngineInfo, ImageState
from detbuild.errors import EngineError
from detbuild.events import ImagePulling
from determined._contract.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.engine.protocol import ContainerSpec, Mount
    from detbuild.events import Emit
    from detbuild.image.plan import ImagePlan

_DEADLINE = 60  # seconds; starting a container on a cold GPU driver takes long
_PULL_SILENCE = 300.0  # seconds between two progress messages of a pull
_IMPORT_SILENCE = 900.0  # seconds that unpacking a whole root file system may take
_MISSING = 404
_CONFLICT = 409
_UNREADABLE = {_MISSING, 500, 501}  # statuses of a removed container, or of a log driver that cannot read
_Json = dict[str, Any]
# CPU weight below the host's default of 1024, so that the host's programs go first under load. A CPU set
# would change how many threads frameworks start, and with them the last digits of results.
_CPU_SHARES: Final = 512
# OOM score: if the host runs out of memory, the kernel kills a trial before the engine or host programs.
_OOM_SCORE: Final = 500
# Log rotation: the run's folder has the output; the engine's copy must not fill its disk.
_LOGS: Final = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
_PODMAN: Final = {"BuildahVersion"}  # a field that Docker Engine does not have


class DockerEngine:
    """One Docker Engine, connected to on the first call.

    `host` is a URL as in DOCKER_HOST; None uses the environment and docker's current context. `deadline` is
    the timeout of each response, in seconds. `whole_tar` builds without a session, from the whole context.
    """

    def __init__(
        self, host: str | None = None, *, deadline: int = _DEADLINE, whole_tar: bool = False
    ) -> None:
        self._client = EngineClient(host, deadline=deadline)
        self._whole_tar = whole_tar

    def info(self) -> EngineInfo:
        raw = self._client.ask("GET", "/info").json()
        return engine_info(raw, api_version=self._client.api_version)

    def image_id(self, reference: str) -> str | None:
        image = self._image(reference)
        return image["Id"] if image else None

    def image_labels(self, reference: str) -> Mapping[str, str]:
        image = self._image(reference)
        if image is None:
            raise engine_error(f"No such image: {reference}")
        return (image.get("Config") or {}).get("Labels") or {}

    def find_images(self, label: str) -> tuple[ImageState, ...]:
        # the only list of images that counts their containers
        found = self._client.ask("GET", "/system/df", params={"type": "image"}).json()["Images"] or ()
        states = [image_state(image) for image in found if label in (image["Labels"] or {})]
        return tuple(sorted(states, key=attrgetter("created"), reverse=True))

    def pull(self, reference: str, emit: Emit, *, credentials: Mapping[str, str] | None = None) -> str:
        repository, tag = _split(reference)
        request = {"fromImage": repository, "tag": tag}
        headers = self._client.connection.registry_auth(repository, credentials or {})
        for message in self._create_image(request, headers=headers, silence=_PULL_SILENCE):
            emit(ImagePulling(reference, _pull_detail(message)))
        return self._id_of_new(reference)

    def build(self, plan: ImagePlan, emit: Emit) -> str:
        from detbuild.engine.buildkit.build import build

        return build(self._client, plan, emit, whole_tar=self._whole_tar)

    def create(self, spec: ContainerSpec) -> str:
        answer = self._client.ask(
            "POST",
            "/containers/create",
            params={"name": spec.name},
            body=create_body(spec),
            accept={_CONFLICT},
        )
        if answer.status == _CONFLICT:
            return self._created_before(spec)
        created: str = answer.json()["Id"]
        return created

    def start(self, container: str) -> None:
        state = self.inspect(container)
        if state is not None and state.status != "created":
            return  # the engine would start an ended one again
        self._client.ask("POST", f"/containers/{container}/start")

    def inspect(self, container: str) -> ContainerState | None:
        answer = self._client.ask("GET", f"/containers/{container}/json", accept={_MISSING})
        return None if answer.status == _MISSING else state_of(answer.json())

    def wait(self, container: str, *, timeout: float) -> ContainerState | None:
        state = self._present(container)
        if not state.ended and timeout > 0:
            # "not-running" would return at once for a created container
            condition = "next-exit" if state.status == "created" else "not-running"
            # timeout, lost engine or removed container: the next inspect tells which
            with suppress(EngineError):
                self._client.ask(
                    "POST", f"/containers/{container}/wait", params={"condition": condition}, timeout=timeout
                )
            state = self._present(container)
        return state if state.ended else None

    def output_tail(self, container: str, lines: int) -> tuple[str, ...]:
        params = {"stdout": "1", "stderr": "1", "tail": str(lines)}
        answer = self._client.ask("GET", f"/containers/{container}/logs", params=params, accept=_UNREADABLE)
        output = b"" if answer.status in _UNREADABLE else demultiplexed(answer.body)
        return tuple(output.decode("utf-8", "replace").splitlines()[-lines:])

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
        filters = json.dumps({"label": wanted})
        found = self._client.ask("GET", "/containers/json", params={"all": "1", "filters": filters}).json()
        states = map(listed_state, found)
        # The list has no exit codes; inspecting a container that is starting would block until it runs.
        asked = (self.inspect(state.id) if state.ended else state for state in states)
        return tuple(state for state in asked if state is not None)

    def signal(self, container: str, signal: str) -> None:
        # a conflict means that it is not running
        gone = {_MISSING, _CONFLICT}
        self._client.ask("POST", f"/containers/{container}/kill", params={"signal": signal}, accept=gone)

    def remove(self, container: str) -> None:
        # a conflict means that its removal is in progress
        gone = {_MISSING, _CONFLICT}
        params = {"force": "1", "v": "1"}
        self._client.ask("DELETE", f"/containers/{container}", params=params, accept=gone)

    def remove_image(self, reference: str) -> None:
        self._client.ask("DELETE", f"/images/{reference}", params={"force": "1"}, accept={_MISSING})

    def import_image(self, rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        repository, version = _split(tag)
        request = {"fromSrc": "-", "repo": repository, "tag": version, "changes": changes}
        try:
            with Path(rootfs_tar).open("rb") as file:
                for _ in self._create_image(request, body=file, silence=_IMPORT_SILENCE):
                    pass
        except OSError as error:
            raise EngineError(f"cannot read {rootfs_tar}: {reason_of(error)}") from error
        return self._id_of_new(tag)

    def close(self) -> None:
        self._client.close()

    def _create_image(
        self,
        params: Mapping[str, str | Sequence[str]],
        *,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float,
    ) -> Iterator[dict[str, Any]]:
        answer = self._client.connection.stream(
            "/images/create", params=params, body=body, headers=headers, silence=silence
        )
        with closing(answer) as messages:
            for message in messages:
                if "error" in message:
                    raise engine_error(message["error"])
                yield message

    def _image(self, reference: str) -> dict[str, Any] | None:
        answer = self._client.ask("GET", f"/images/{reference}/json", accept={_MISSING})
        if answer.status == _MISSING:
            return None
        image: dict[str, Any] = answer.json()
        return image

    def _id_of_new(self, reference: str) -> str:
        image = self.image_id(reference)
        if image is None:
            raise EngineError(f"Docker Engine reported {reference} as created, but cannot find it")
        return image

    def _created_before(self, spec: ContainerSpec) -> str:
        """Return the existing container with this name if it has the labels of `spec`."""
        there = self.inspect(spec.name)
        if there is None:
            raise EngineError(f"container {spec.name} is being removed", hint="try again")
        if any(there.labels.get(key) != value for key, value in spec.labels.items()):
            raise EngineError(
                f"the container name {spec.name} is in use by another container",
                hint=f"check it with `docker inspect {spec.name}`, then rename or remove it",
            )
        return there.id

    def _present(self, container: str) -> ContainerState:
        state = self.inspect(container)
        if state is None:
            raise LookupError(container)
        return state


def _split(reference: str) -> tuple[str, str]:
    """Split a reference into the repository and the tag or digest."""
    repository, at, digest = reference.partition("@")
    if at:
        return repository, digest
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:  # the colon of a registry's port
        return reference, "latest"
    return repository, tag


def _pull_detail(message: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (message.get("id"), message.get("status"), message.get("progress"))))


def create_body(spec: ContainerSpec) -> _Json:
    """Build the body of `POST /containers/create`."""
    ports = [f"{port}/tcp" for port in spec.ports]
    return {
        "Image": spec.image,
        "Cmd": list(spec.command) or None,  # None: the image's own
        "Entrypoint": list(spec.entrypoint) or None,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin,
        "Tty": spec.terminal,
        "Env": [f"{key}={value}" for key, value in spec.env.items()],
        "User": spec.user,
        "Labels": dict(spec.labels),
        "StopTimeout": spec.stop_timeout,
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "ShmSize": spec.shm_size,
            "Mounts": [*(_volume(path) for path in spec.scratch), *(_mount(mount) for mount in spec.mounts)],
            "Devices": [
                {
                    "PathOnHost": device.host_path,
                    "PathInContainer": device.container_path,
                    "CgroupPermissions": device.permissions,
                }
                for device in spec.devices
            ],
            "DeviceRequests": _device_requests(spec),
            "CapAdd": list(spec.cap_add),
            "CapDrop": list(spec.cap_drop),
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": spec.pids_limit,
            "Memory": spec.memory,
            "MemorySwap": spec.memory,  # memory plus swap: no swap
            "NanoCpus": round(spec.cpus * 1_000_000_000),
            "CpuShares": _CPU_SHARES,
            "OomScoreAdj": _OOM_SCORE,
            "ReadonlyRootfs": spec.read_only_root,
            "NetworkMode": spec.network,
            "PortBindings": {port: [{"HostPort": ""}] for port in ports},
            "Tmpfs": dict(_tmpfs(text) for text in spec.tmpfs),
            "Init": False,  # PID 1 is the harness's supervisor
            "LogConfig": _LOGS,
        },
    }


def state_of(inspected: _Json) -> ContainerState:
    """Parse the response of `GET /containers/<id>/json`."""
    state = inspected["State"]
    return ContainerState(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        status=state["Status"],
        exit_code=state["ExitCode"],
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
        memory=inspected.get("HostConfig", {}).get("Memory") or 0,
        labels=inspected["Config"].get("Labels") or {},
    )


def listed_state(listed: _Json) -> ContainerState:
    """Parse an element of the response of `GET /containers/json`, which has no exit code."""
    return ContainerState(
        id=listed["Id"],
        name=listed["Names"][0].removeprefix("/"),
        status=listed["State"],
        labels=listed.get("Labels") or {},
    )


def demultiplexed(output: bytes) -> bytes:
    """Merge stdout and stderr frames, each with a header of 4 bytes of kind and 4 of length."""
    pieces, start = [], 0
    while start + 8 <= len(output):
        end = start + 8 + int.from_bytes(output[start + 4 : start + 8], "big")
        pieces.append(output[start + 8 : end])
        start = end
    return b"".join(pieces)


def _mount(mount: Mount) -> _Json:
    # Unlike the string form src:dst, this form fails if the source does not exist.
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": mount.propagation},
    }


def _volume(path: str) -> _Json:
    """An anonymous volume, filled from the image and removed with the container."""
    return {"Type": "volume", "Target": path}


def _device_requests(spec: ContainerSpec) -> list[_Json]:
    if not spec.gpus:
        return []
    capabilities = [["gpu", "compute", "utility"]] if spec.gpu_driver == "nvidia" else []
    return [{"Driver": spec.gpu_driver, "DeviceIDs": list(spec.gpus), "Capabilities": capabilities}]


def _tmpfs(text: str) -> tuple[str, str]:
    path, _, options = text.partition(":")
    return path, options


def engine_info(raw: Mapping[str, Any], *, api_version: str) -> EngineInfo:
    """Parse the response of `GET /info`, in which Podman and old engines leave fields out.

    Podman returns a different id each time, so its id is "".
    """
    return EngineInfo(
        id="" if _PODMAN & raw.keys() else raw.get("ID", ""),
        name=raw.get("Name", ""),
        version=raw.get("ServerVersion", ""),
        api_version=api_version,
        storage_driver=raw.get("Driver", ""),
        data_root=raw.get("DockerRootDir", ""),
        cpus=raw.get("NCPU", 0),
        memory=raw.get("MemTotal", 0),
        architecture=raw.get("Architecture", ""),
        rootless="name=rootless" in (raw.get("SecurityOptions") or ()),
        live_restore=bool(raw.get("LiveRestoreEnabled")),
        log_driver=raw.get("LoggingDriver", ""),
        cgroup_version=str(raw.get("CgroupVersion", "")),
        runtimes=tuple(sorted(raw.get("Runtimes") or ())),
        cdi_devices=tuple(_cdi_devices(raw)),
    )


def _cdi_devices(raw: Mapping[str, Any]) -> list[str]:
    """List the CDI devices, which Docker Engine reports since 28.3."""
    return [device["ID"] for device in raw.get("DiscoveredDevices") or () if device.get("Source") == "cdi"]


def image_state(raw: Mapping[str, Any]) -> ImageState:
    """Parse an image of the response of `GET /system/df`."""
    return ImageState(
        id=raw["Id"],
        tags=tuple(raw["RepoTags"] or ()),
        created=float(raw["Created"]),
        size=raw["Size"] - max(0, raw.get("SharedSize", 0)),
        containers=max(0, raw.get("Containers", 0)),
        labels=raw["Labels"] or {},
    )
