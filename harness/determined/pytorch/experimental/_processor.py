"""The class that users derive from: what is done with one batch."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from determined.pytorch._types import Untyped
    from determined.pytorch.experimental._context import TorchBatchProcessorContext


class TorchBatchProcessor(abc.ABC):
    """Made once in each process; load the model in `__init__`."""

    def __init__(self, context: TorchBatchProcessorContext) -> None:  # noqa: B027  (users need not call it)
        pass

    @abc.abstractmethod
    def process_batch(self, batch: Untyped, batch_idx: int) -> None:
        """Do the work.

        Args:
            batch: as the loader gave it; `context.to_device` moves it.
            batch_idx: counts the batches of this process from 0, through interruptions too.
        """

    def on_checkpoint_start(self) -> None:  # noqa: B027  (optional)
        """Bring results to safety: a resumed job goes on after the batches seen so far."""

    def on_finish(self) -> None:  # noqa: B027  (optional)
        """All batches of this process are done, and the last checkpoint is stored."""
