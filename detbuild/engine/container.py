"""Translates a ContainerSpec to the engine's API and the engine's responses to a ContainerState."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from detbuild.engine.protocol import ContainerState

if TYPE_CHECKING:
    from detbuild.engine.protocol import ContainerSpec, Mount

Json = dict[str, Any]
# CPU weight below the host's default of 1024, so that the host's programs go first under load. A CPU set
# would change how many threads frameworks start, and with them the last digits of results.
_CPU_SHARES: Final = 512
# OOM score: if the host runs out of memory, the kernel kills a trial before the engine or host programs.
_OOM_SCORE: Final = 500
# Log rotation: the run's folder has the output; the engine's copy must not fill its disk.
_LOGS: Final = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}


def create_body(spec: ContainerSpec) -> Json:
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


def state_of(inspected: Json) -> ContainerState:
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


def listed_state(listed: Json) -> ContainerState:
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


def _mount(mount: Mount) -> Json:
    # Unlike the string form src:dst, this form fails if the source does not exist.
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": mount.propagation},
    }


def _volume(path: str) -> Json:
    """An anonymous volume, filled from the image and removed with the container."""
    return {"Type": "volume", "Target": path}


def _device_requests(spec: ContainerSpec) -> list[Json]:
    if not spec.gpus:
        return []
    capabilities = [["gpu", "compute", "utility"]] if spec.gpu_driver == "nvidia" else []
    return [{"Driver": spec.gpu_driver, "DeviceIDs": list(spec.gpus), "Capabilities": capabilities}]


def _tmpfs(text: str) -> tuple[str, str]:
    path, _, options = text.partition(":")
    return path, options
