"""Determined's PyTorch API: `from determined.pytorch import PyTorchTrial, DataLoader`."""

from __future__ import annotations

from determined._contract.errors import InvalidHP
from determined.pytorch import samplers
from determined.pytorch._callbacks import ClipGradsL2Norm, ClipGradsL2Value, PyTorchCallback
from determined.pytorch._checkpoint import load_trial_from_checkpoint_path, reset_parameters
from determined.pytorch._context import LRScheduler, PyTorchTrialContext
from determined.pytorch._data import DataLoader, adapt_batch_sampler, data_length
from determined.pytorch._device import Array, TorchData, to_device
from determined.pytorch._metrics import MetricReducer, Reducer
from determined.pytorch._trainer import Batch, Epoch, Trainer, TrainUnit, init
from determined.pytorch._trial import PyTorchTrial
from determined.pytorch.samplers import (
    DistributedBatchSampler,
    DistributedSampler,
    RepeatBatchSampler,
    RepeatSampler,
    ReproducibleShuffleBatchSampler,
    ReproducibleShuffleSampler,
    SkipBatchSampler,
    SkipSampler,
)

__all__ = [
    "Array",
    "Batch",
    "ClipGradsL2Norm",
    "ClipGradsL2Value",
    "DataLoader",
    "DistributedBatchSampler",
    "DistributedSampler",
    "Epoch",
    "InvalidHP",
    "LRScheduler",
    "MetricReducer",
    "PyTorchCallback",
    "PyTorchTrial",
    "PyTorchTrialContext",
    "Reducer",
    "RepeatBatchSampler",
    "RepeatSampler",
    "ReproducibleShuffleBatchSampler",
    "ReproducibleShuffleSampler",
    "SkipBatchSampler",
    "SkipSampler",
    "TorchData",
    "TrainUnit",
    "Trainer",
    "adapt_batch_sampler",
    "data_length",
    "init",
    "load_trial_from_checkpoint_path",
    "reset_parameters",
    "samplers",
    "to_device",
]
