"""What all suites share: they hold on a host that is busy with other things, and in a background job."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, which children inherit; tests of Ctrl-C need it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
