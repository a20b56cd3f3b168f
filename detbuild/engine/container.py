"""A ContainerSpec as the engine's API wants it, and the engine's answer as a ContainerState."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from detbuild.engine.protocol import ContainerState

if TYPE_CHECKING:
    from detbuild.engine.protocol import ContainerSpec, Mount

Json = dict[str, Any]
# Without a limit of cores a container gets them all, but under load the host's own programs go first: theirs
# is 1024. A set of cores would change how many threads frameworks start, and with them the last digits.
_CPU_SHARES: Final = 512
# When the host runs out of memory, the kernel ends a trial rather than the engine or a program of the host.
_OOM_SCORE: Final = 500
# What a run prints is in its folder; the engine's copy, which nothing else limits, must not fill its disk.
_LOGS: Final = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}


def create_body(spec: ContainerSpec) -> Json:
    """The body of `POST /containers/create`."""
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
            "MemorySwap": spec.memory,  # no more than that: no swap
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


def state_of(inspected: Json) -> ContainerState:
    """From the answer to `GET /containers/<id>/json`."""
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


def listed_state(listed: Json) -> ContainerState:
    """From one element of the answer to `GET /containers/json`, which does not say how a container ended."""
    return ContainerState(
        id=listed["Id"],
        name=listed["Names"][0].removeprefix("/"),
        status=listed["State"],
        labels=listed.get("Labels") or {},
    )


def demultiplexed(output: bytes) -> bytes:
    """Stdout and stderr as they came: the engine sends pieces, each after 4 bytes of kind and 4 of length."""
    pieces, start = [], 0
    while start + 8 <= len(output):
        end = start + 8 + int.from_bytes(output[start + 4 : start + 8], "big")
        pieces.append(output[start + 8 : end])
        start = end
    return b"".join(pieces)


def _mount(mount: Mount) -> Json:
    # Unlike the string form src:dst, this one refuses a source that does not exist.
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": mount.propagation},
    }


def _volume(path: str) -> Json:
    """A directory of the container's own, filled from the image; it is removed with the container."""
    return {"Type": "volume", "Target": path}


def _device_requests(spec: ContainerSpec) -> list[Json]:
    if not spec.gpus:
        return []
    capabilities = [["gpu", "compute", "utility"]] if spec.gpu_driver == "nvidia" else []
    return [{"Driver": spec.gpu_driver, "DeviceIDs": list(spec.gpus), "Capabilities": capabilities}]


def _tmpfs(text: str) -> tuple[str, str]:
    path, _, options = text.partition(":")
    return path, options
