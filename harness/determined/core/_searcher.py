"""`core_context.searcher`: how long to train, as in Determined until 0.37."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined._run.script import RunHandle

_LOG = logging.getLogger("determined.core")


class Unit(enum.Enum):
    """The unit of a length."""

    EPOCHS = "EPOCHS"
    RECORDS = "RECORDS"
    BATCHES = "BATCHES"


class SearcherMode(enum.Enum):
    """Which processes may call: all of them, or rank 0 only. Neither blocks."""

    WorkersAskChief = "WORKERS_ASK_CHIEF"
    ChiefOnly = "CHIEF_ONLY"


class SearcherOperation:
    """Train up to `length`, then report the metric."""

    def __init__(self, handle: RunHandle, length: int) -> None:
        self.length = length
        self.completed = False
        self._handle = handle

    def report_progress(self, length: float) -> None:
        """Report the progress of training, in the unit of `length`."""
        self._chief_only("report_progress")
        if not 0 <= length <= self.length:
            raise RuntimeError(f"op.report_progress got {length!r}, expected 0 to {self.length}")
        if self._handle.chief and self.length:
            self._handle.chief.report_progress(length / self.length)

    def report_completed(self, searcher_metric: float) -> None:
        """Report that the operation is done, and its searcher metric."""
        self._chief_only("report_completed")
        if self.completed:
            raise RuntimeError("op.report_completed was called twice for one operation")
        self.completed = True
        _LOG.info("training completed; the searcher metric is %s", searcher_metric)
        self.report_progress(self.length)

    def _chief_only(self, method: str) -> None:
        rank = self._handle.distributed.rank
        if rank:
            raise RuntimeError(f"rank {rank} called op.{method}: call it on rank 0 only")


class SearcherContext:
    def __init__(self, handle: RunHandle) -> None:
        self._handle = handle

    def operations(
        self,
        searcher_mode: SearcherMode = SearcherMode.WorkersAskChief,  # noqa: ARG002  (nothing is asked)
        auto_ack: bool = True,  # noqa: ARG002, FBT001, FBT002  (Determined's own signature)
    ) -> Iterator[SearcherOperation]:
        """Yield one operation of `searcher.max_length`; of length 1 in a script run by hand.

        Raises:
            RuntimeError: the script continued without `op.report_completed`.
        """
        operation = SearcherOperation(self._handle, self._length())
        yield operation
        if self._handle.chief and not operation.completed:
            raise RuntimeError("call op.report_completed(metric) at the end of each searcher operation")

    def get_configured_units(self) -> Unit | None:
        """Return the unit of `searcher.max_length`; None if the script decides on its length."""
        length = self._handle.info.max_length
        return Unit[length.unit.upper()] if length else None

    def _length(self) -> int:
        info = self._handle.info
        if info.max_length is not None:
            return 1 if info.test_mode else info.max_length.count
        if not self._handle.supervised:
            return 1
        raise InvalidTrialError(
            "the script requests searcher operations, but the config does not say how long to train",
            hint="set searcher.max_length, e.g. {batches: 1000}",
        )
