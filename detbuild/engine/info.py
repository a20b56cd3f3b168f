"""Parses what the engine reports about itself and its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from detbuild.engine.protocol import EngineInfo, ImageState

if TYPE_CHECKING:
    from collections.abc import Mapping

_PODMAN: Final = {"BuildahVersion"}  # a field that Docker Engine does not have


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
