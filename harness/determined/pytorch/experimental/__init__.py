"""`torch_batch_process`: the same work for every batch of a data set, such as inference."""

from __future__ import annotations

from determined.pytorch.experimental._context import TorchBatchProcessorContext
from determined.pytorch.experimental._job import torch_batch_process
from determined.pytorch.experimental._processor import TorchBatchProcessor

__all__ = ["TorchBatchProcessor", "TorchBatchProcessorContext", "torch_batch_process"]
