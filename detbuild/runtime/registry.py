"""The runtime of an experiment: Docker Engine, or one of the home's `runtimes`, which packages add."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from detbuild.config.host import DOCKER, RUNTIMES, host_config
from detbuild.errors import ConfigError
from detbuild.runtime.docker import MAX_WORKERS, DockerRuntime
from detbuild.runtime.slot_queue import Limits, SlotQueue
from detbuild.runtime.slot_requests import lock_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.config.host import HostConfig, RuntimeConfig
    from detbuild.engine.protocol import Engine, EngineInfo
    from detbuild.runtime.protocol import Runtime
    from detbuild.store.experiment_dir import ExperimentFolder


def runtime_for(config: HostConfig, engine: Engine, info: EngineInfo) -> Runtime:
    """Return the runtime of a new experiment, to check what it can run."""
    if config.runtime != DOCKER:
        return _opened(config.runtimes[config.runtime])
    limits = Limits(gpus=config.gpus)
    return DockerRuntime(engine, None, SlotQueue(lock_directory()), limits=lambda: limits, info=info)


def runtime_of(
    folder: ExperimentFolder,
    engine: Engine,
    info: EngineInfo | None = None,
    *,
    max_workers: int = MAX_WORKERS,
) -> Runtime:
    """Return the runtime that an experiment was submitted to.

    Args:
        folder: The experiment.
        engine: Docker Engine, which is not called here.
        info: The engine's last answer about itself, which saves a call.
        max_workers: Slow calls to the engine in parallel.

    Raises:
        ConfigError: The home's config.yaml is invalid, or does not have the runtime any more.
    """
    name = folder.header().runtime
    if name == DOCKER:
        return DockerRuntime.of(folder, engine, info, max_workers=max_workers)
    config = host_config(folder.path.parent.parent)
    if name not in config.runtimes:
        raise ConfigError(
            f"experiment {folder.id} runs on the runtime {name}, which config.yaml of the home does not have",
            hint=f"add {name} to `runtimes` again, then run `detbuild resume`",
        )
    return _opened(config.runtimes[name])


def _opened(section: RuntimeConfig) -> Runtime:
    opener = cast("Callable[[RuntimeConfig], Runtime]", RUNTIMES.call(section.kind))
    return opener(section)
