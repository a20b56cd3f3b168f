"""How fast a trial trains: batches and records per second, over the time spent in training alone."""

from __future__ import annotations

GROUP = "throughput"
_SPAN = 10.0  # seconds of training between two reports


class Throughput:
    """Sums up what was trained since its last report."""

    def __init__(self) -> None:
        self._seconds, self._batches, self._records = 0.0, 0, 0

    def add(self, seconds: float, batches: int, records: int) -> bool:
        """Whether it is time for a report."""
        self._seconds += seconds
        self._batches += batches
        self._records += records
        return self._seconds >= _SPAN

    def take(self) -> dict[str, object]:
        """The metrics; the next ones begin here. Records are left out where their number is not known."""
        metrics: dict[str, object] = {"batches_per_second": self._batches / self._seconds}
        if self._records:
            metrics["records_per_second"] = self._records / self._seconds
        self._seconds, self._batches, self._records = 0.0, 0, 0
        return metrics
