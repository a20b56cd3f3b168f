"""`torch_batch_process`: process every batch of a data set, e.g. for inference."""

from __future__ import annotations

from determined.pytorch.experimental._batch_process import (
    TorchBatchProcessor,
    TorchBatchProcessorContext,
    torch_batch_process,
)

__all__ = ["TorchBatchProcessor", "TorchBatchProcessorContext", "torch_batch_process"]
