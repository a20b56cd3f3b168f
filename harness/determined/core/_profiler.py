"""`core_context.profiler`: accepted for compatibility."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("determined.core")


class ProfilerContext:
    """A profiler without effect: on the host, `docker stats` and `nvidia-smi` show system metrics."""

    def on(self, sampling_interval: float = 1, samples_per_report: int = 10) -> None:  # noqa: ARG002
        _LOG.info("profiler.on has no effect: use docker stats and nvidia-smi on the host")

    def off(self) -> None: ...
