"""Determined's Core API: metrics, checkpoints, preemption and processes for scripts with their own loop.

with det.core.init() as core_context:
    core_context.train.report_training_metrics(steps_completed=1, metrics={"loss": 0.5})
"""

from __future__ import annotations

from determined._run.processes import DistributedContext, DummyDistributedContext
from determined.core._checkpoint import CheckpointContext, DownloadMode
from determined.core._context import (
    Context,
    ExperimentalCoreContext,
    PreemptContext,
    PreemptMode,
    ProfilerContext,
    TensorboardMode,
    init,
)
from determined.core._searcher import SearcherContext, SearcherMode, SearcherOperation, Unit
from determined.core._train import EarlyExitReason, TrainContext

__all__ = [
    "CheckpointContext",
    "Context",
    "DistributedContext",
    "DownloadMode",
    "DummyDistributedContext",
    "EarlyExitReason",
    "ExperimentalCoreContext",
    "PreemptContext",
    "PreemptMode",
    "ProfilerContext",
    "SearcherContext",
    "SearcherMode",
    "SearcherOperation",
    "TensorboardMode",
    "TrainContext",
    "Unit",
    "init",
]
