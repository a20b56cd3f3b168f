"""Rules about the engine: reachability, features, settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.cli.doctor import host_rules
from detbuild.cli.doctor.verdict import NO_ENGINE, Verdict, fatal, ok, warning
from detbuild.units import size

if TYPE_CHECKING:
    from detbuild.cli.doctor.verdict import CheckContext

OLDEST_API = (1, 40)  # Docker Engine 19.03: BuildKit and GPU requests
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REMOTE_LOGS = frozenset({"syslog", "fluentd", "gelf", "splunk", "awslogs", "gcplogs", "logentries"})
NEEDED_MEMORY = 4 << 30


def reachable(context: CheckContext) -> Verdict:
    if context.info is None:
        error = context.error
        return fatal(str(error), error.hint if error else "") if error else NO_ENGINE
    info = context.info
    rootless = ", rootless" if info.rootless else ""
    return ok(
        f"{info.version} (API {info.api_version}), {info.cpus} CPUs, {size(info.memory)}, "
        f"{info.storage_driver}, cgroup v{info.cgroup_version}{rootless}"
    )


def socket(context: CheckContext) -> Verdict:
    host = context.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
    if context.info is not None:
        return ok("accessible")
    if not host.startswith("unix://"):
        return warning(f"no engine answers at DOCKER_HOST={host}", "check that the engine runs there")
    path = Path(host.removeprefix("unix://"))
    if not path.exists():
        return fatal(
            f"{path} does not exist",
            "install and start Docker Engine, or set DOCKER_HOST; `--local` needs no engine",
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return fatal(f"{path} is not accessible", "run `sudo usermod -aG docker $USER`, then log in again")
    return ok(str(path))


def buildkit(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    version = tuple(int(part) for part in context.info.api_version.split(".") if part.isdigit())
    if version < OLDEST_API:
        return fatal(
            f"API {context.info.api_version} is too old for BuildKit", "use Docker Engine 23 or newer"
        )
    return ok(f"part of engine {context.info.version}")


def log_driver(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    driver = context.info.log_driver
    if driver in REMOTE_LOGS:
        return warning(
            f"{driver}: containers may fail to start while its target is unreachable",
            "set `log-driver` to `local`; detbuild keeps output in its own files",
        )
    return ok(f"{driver}; detbuild keeps events and output in its own files")


def live_restore(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    if context.info.live_restore:
        return ok("on: containers keep running when the engine restarts")
    return ok("off: when the engine restarts, trials continue from their newest checkpoint")


def base_image(context: CheckContext) -> Verdict:
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    if context.engine is None:
        return NO_ENGINE
    references = [base.pinned for base in load_table(images_dir()).bases]
    present = [reference for reference in references if context.engine.image_id(reference)]
    if not present:
        return warning(
            "none present; the first build pulls one", "without a registry, run `detbuild base bootstrap`"
        )
    return ok(", ".join(present))


def gpu_toolkit(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    if context.info.cdi_devices:
        return ok(f"CDI devices: {', '.join(context.info.cdi_devices)}")
    if "nvidia" in context.info.runtimes:
        return ok("NVIDIA container runtime")
    if host_rules.DRIVER_VERSION.exists():
        return warning(
            "a GPU driver is installed, but the engine cannot pass GPUs to containers",
            "install nvidia-container-toolkit; run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
        )
    return ok("none, and no GPU driver: trials train on the CPU, with `resources: {slots_per_trial: 0}`")


def shared_memory(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    if context.info.memory < NEEDED_MEMORY:
        return warning(
            f"the engine has {size(context.info.memory)} of memory; trials get up to 4 GiB of it as /dev/shm",
            "set a smaller `resources.shm_size`, or fewer data loader workers",
        )
    return ok("trials get 4 GiB as /dev/shm, or `resources.shm_size`")


def data_root(context: CheckContext) -> Verdict:
    if context.info is None:
        return NO_ENGINE
    path = Path(context.info.data_root)
    if not path.is_dir():
        return ok(f"{path} is not readable on this host: free space unknown")
    return host_rules.disk(path, recommended=20 * host_rules.GB, required=host_rules.GB)
