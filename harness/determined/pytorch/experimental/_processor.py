"""TorchBatchProcessor, the class that users derive from."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from determined.pytorch._types import Untyped
    from determined.pytorch.experimental._context import TorchBatchProcessorContext


class TorchBatchProcessor(abc.ABC):
    """Processes batches; created once per process. Load the model in `__init__`."""

    def __init__(self, context: TorchBatchProcessorContext) -> None:  # noqa: B027  (users need not call it)
        pass

    @abc.abstractmethod
    def process_batch(self, batch: Untyped, batch_idx: int) -> None:
        """Process one batch.

        Args:
            batch: as the loader returned it; `context.to_device` moves it.
            batch_idx: index of the batch in this process, from 0; a resumed job continues it.
        """

    def on_checkpoint_start(self) -> None:  # noqa: B027  (optional)
        """Store the results: a resumed job continues after the batches processed so far."""

    def on_finish(self) -> None:  # noqa: B027  (optional)
        """Finish: all batches of this process are done, and the last checkpoint is stored."""
