"""`torch_batch_process`: process every batch of a data set, e.g. for inference."""

from __future__ import annotations

from determined.pytorch.experimental._context import TorchBatchProcessorContext
from determined.pytorch.experimental._job import torch_batch_process
from determined.pytorch.experimental._processor import TorchBatchProcessor

__all__ = ["TorchBatchProcessor", "TorchBatchProcessorContext", "torch_batch_process"]
