"""What all suites share: they hold on a busy host, in a background job and under nohup."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")


# Torch picks kernels by the processor, and their last digits differ: the goldens of `tests/peer` need these.
os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE")


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and nohup programs with SIGHUP ignored.

    Children inherit that, and some tests send these signals to theirs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
