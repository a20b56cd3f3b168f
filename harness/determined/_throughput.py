"""Throughput of training: batches and records per second, without validation and checkpoints."""

from __future__ import annotations

GROUP = "throughput"
_SPAN = 10.0  # seconds of training between two reports


class Throughput:
    """Counts what was trained since the last report."""

    def __init__(self) -> None:
        self._seconds, self._batches, self._records = 0.0, 0, 0

    def add(self, seconds: float, batches: int, records: int) -> bool:
        """Add a measurement; return whether a report is due."""
        self._seconds += seconds
        self._batches += batches
        self._records += records
        return self._seconds >= _SPAN

    def take(self) -> dict[str, object]:
        """Return the metrics and reset. Records are left out if their number is unknown."""
        metrics: dict[str, object] = {"batches_per_second": self._batches / self._seconds}
        if self._records:
            metrics["records_per_second"] = self._records / self._seconds
        self._seconds, self._batches, self._records = 0.0, 0, 0
        return metrics
