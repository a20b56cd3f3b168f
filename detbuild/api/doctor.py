"""Checks of this host, its engine and its network, in parallel, each with a deadline.

Rules about the engine: reachability, features, settings.

Rules about this host: disks, Python, GPU driver.

Rules about the registry and the package index that builds use.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Literal, TypeVar

from detbuild.errors import DetbuildError, EngineError
from detbuild.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detbuild.api.connection import Connection
    from detbuild.engine.protocol import Engine, EngineInfo

OLDEST_API = (1, 40)  # Docker Engine 19.03: BuildKit and GPU requests
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REMOTE_LOGS = frozenset({"syslog", "fluentd", "gelf", "splunk", "awslogs", "gcplogs", "logentries"})
NEEDED_MEMORY = 4 << 30
GB = 1_000_000_000
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
REGISTRY = "https://registry-1.docker.io/v2/"
DEADLINE = 5.0  # seconds for each rule
Result = TypeVar("Result")
Severity = Literal["ok", "warning", "fatal"]


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
    if DRIVER_VERSION.exists():
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
    return disk(path, recommended=20 * GB, required=GB)


def disk(path: Path, *, recommended: int, required: int) -> Verdict:
    """Check the free space in bytes under `path`, which need not exist yet."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    finding = f"{size(free)} free under {path}"
    if free < required:
        return fatal(finding, "free some space; `docker system df` shows what the engine uses")
    if free < recommended:
        return warning(
            f"{finding}: images with a framework take {size(recommended)} and more", "free some space"
        )
    return ok(finding)


def home(context: CheckContext) -> Verdict:
    verdict = disk(context.home, recommended=5 * GB, required=GB // 5)
    existing = next(parent for parent in (context.home, *context.home.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return fatal(f"{existing} is not writable", "set DETBUILD_HOME to a writable directory")
    return verdict


def config(context: CheckContext) -> Verdict:
    """Check the host config; its error is the finding."""
    from detbuild.config.host import HOST_CONFIG, host_config

    host = host_config(context.home)
    for warned in host.warnings():
        return warning(warned.message, warned.hint)
    existing = (context.home / HOST_CONFIG).exists()
    return ok(str(context.home / HOST_CONFIG) if existing else f"none in {context.home}: nothing is preset")


def temporary(_around: CheckContext) -> Verdict:
    return disk(Path(tempfile.gettempdir()), recommended=GB, required=GB // 20)


def python(_around: CheckContext) -> Verdict:
    return ok(f"{platform.python_version()} ({sys.executable})")


def peer(_around: CheckContext) -> Verdict:
    """Check that Determined's own package `determined` is not installed too."""
    import determined

    hint = f"run `{sys.executable} -m pip uninstall determined`, then install detbuild again"
    try:
        version = metadata.version("determined")
    except metadata.PackageNotFoundError:
        return ok(f"`import determined` is detbuild's ({Path(determined.__file__ or '').parent})")
    return fatal(f"Determined's own package `determined` {version} is installed too", hint)


def plugins(_around: CheckContext) -> Verdict:
    """Check the searchers, storages and runtimes that installed packages add."""
    from detbuild.config.schema import plugins as installed

    found = installed()
    broken = [f"`{plugin.name}`: {plugin.problem}" for plugin in found if plugin.error]
    if broken:
        return warning("; ".join(broken), "repair or uninstall these packages")
    return ok(", ".join(f"{one.name} ({one.package})" for one in found) or "no package adds any")


def gpu_driver(_around: CheckContext) -> Verdict:
    from detbuild.image.requirements import release
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    version = _driver_version()
    if not version:
        return ok("none: trials train on the CPU, with `resources: {slots_per_trial: 0}`")
    frameworks = load_table(images_dir()).frameworks.values()
    oldest = min((row.min_driver for framework in frameworks for row in framework.releases), key=release)
    if release(version) < release(oldest):
        return warning(f"NVIDIA {version} is too old for the frameworks", f"install {oldest} or newer")
    return ok(f"NVIDIA {version}")


def _driver_version() -> str:
    """Return the version from the driver's own line; "" without a driver."""
    try:
        first = DRIVER_VERSION.read_text(encoding="utf-8").splitlines()[0]
    except (FileNotFoundError, IndexError):
        return ""
    return next((word for word in first.split() if word[:1].isdigit()), "")


def package_index(context: CheckContext) -> Verdict:
    """Query the index with pip, which applies its own settings, proxies and certificates."""
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", "--retries", "0", "--timeout", "3"]
    try:
        completed = subprocess.run(
            [*command, "--disable-pip-version-check", "--no-input"],
            env={**context.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=4,
        )
    except subprocess.TimeoutExpired:
        return warning("the package index did not answer in time", "check `pip config list` and proxies")
    if completed.returncode == 0:
        return ok("reachable with pip")
    if "No module named pip" in completed.stderr:
        return ok("not checked: this Python has no pip; builds use that of the image")
    return warning(
        "pip cannot reach a package index; only builds from cached layers or without packages will work",
        "check `pip config list`, proxies and certificates; or point PIP_FIND_LINKS at a directory of wheels",
    )


def registry(_around: CheckContext) -> Verdict:
    """Check that the registry answers, even with 401; a remote engine may have another network."""
    try:
        with urllib.request.urlopen(REGISTRY, timeout=3):
            pass
    except urllib.error.HTTPError:
        return ok(f"{REGISTRY} answers")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return warning(
            f"{REGISTRY} does not answer: {reason}",
            "needed only for missing base images; `detbuild base bootstrap` builds one without a registry",
        )
    return ok(f"{REGISTRY} answers")


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    group: str
    check: Callable[[CheckContext], Verdict]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    rule: str
    group: str
    severity: Severity
    finding: str
    hint: str


RULES: tuple[Rule, ...] = (
    Rule("engine", "Engine", reachable),
    Rule("socket", "Engine", socket),
    Rule("buildkit", "Engine", buildkit),
    Rule("log driver", "Engine", log_driver),
    Rule("live-restore", "Engine", live_restore),
    Rule("base image", "Engine", base_image),
    Rule("gpu toolkit", "GPU", gpu_toolkit),
    Rule("gpu driver", "GPU", gpu_driver),
    Rule("shared memory", "Host", shared_memory),
    Rule("data root", "Host", data_root),
    Rule("home", "Host", home),
    Rule("host config", "Host", config),
    Rule("temporary files", "Host", temporary),
    Rule("python", "Host", python),
    Rule("determined", "Host", peer),
    Rule("plug-ins", "Host", plugins),
    Rule("registry", "Network", registry),
    Rule("package index", "Network", package_index),
)


def examine(
    connection: Connection, rules: tuple[Rule, ...] = RULES, *, deadline: float = DEADLINE
) -> tuple[Finding, ...]:
    """Check all rules, in at most two deadlines."""
    engine, info, error = _connect(connection, deadline)
    context = CheckContext(
        home=connection.path, environ=connection.environ, engine=engine, info=info, error=error
    )
    pending = [(rule, _start(lambda rule=rule: _check(rule, context))) for rule in rules]  # type: ignore[misc]
    end = monotonic() + deadline
    return tuple(_finding(rule, _receive(answer, end)) for rule, answer in pending)


def _connect(
    connection: Connection, deadline: float
) -> tuple[Engine | None, EngineInfo | None, DetbuildError | None]:
    def connect() -> tuple[Engine | None, EngineInfo | None, DetbuildError | None]:
        try:
            engine = connection.connect()
            return engine, engine.info(), None
        except DetbuildError as error:
            return None, None, error

    timed_out = EngineError(f"the engine did not answer within {deadline:.0f} s", hint="restart it")
    return _receive(_start(connect), monotonic() + deadline) or (None, None, timed_out)


def _check(rule: Rule, context: CheckContext) -> Verdict:
    try:
        return rule.check(context)
    except DetbuildError as error:
        return fatal(str(error), error.hint)
    except OSError as error:
        return warning(f"could not be checked: {error}", "")


def _start(call: Callable[[], Result]) -> SimpleQueue[Result | None]:
    """Call in a daemon thread, so that a hung call does not block the exit."""
    answer: SimpleQueue[Result | None] = SimpleQueue()

    def work() -> None:
        result = None
        try:
            result = call()
        finally:
            answer.put(result)

    threading.Thread(target=work, daemon=True).start()
    return answer


def _receive(answer: SimpleQueue[Result | None], end: float) -> Result | None:
    try:
        return answer.get(timeout=max(0.0, end - monotonic()))
    except Empty:
        return None


def _finding(rule: Rule, verdict: Verdict | None) -> Finding:
    result = verdict or warning("timed out", "try again")
    return Finding(
        rule=rule.name, group=rule.group, severity=result.severity, finding=result.finding, hint=result.hint
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckContext:
    """The host as the rules see it; without an engine `engine` and `info` are None and `error` is set."""

    home: Path
    environ: Mapping[str, str]
    engine: Engine | None
    info: EngineInfo | None
    error: DetbuildError | None


@dataclass(frozen=True, slots=True)
class Verdict:
    severity: Severity
    finding: str
    hint: str = ""


def ok(finding: str) -> Verdict:
    return Verdict("ok", finding)


def warning(finding: str, hint: str) -> Verdict:
    return Verdict("warning", finding, hint)


def fatal(finding: str, hint: str) -> Verdict:
    return Verdict("fatal", finding, hint)


NO_ENGINE = Verdict("warning", "not checked: no engine answers")


def engine_version(connection: Connection) -> str | None:
    """Return the version of the engine; None if none answers."""
    try:
        return connection.connect().info().version
    except EngineError:
        return None
