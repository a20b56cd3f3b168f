"""Sections about training: seeds, profiling, optimizations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from detbuild.config.fields import Count, IntRange, Positive
from detbuild.config.section import Section, wrong

MAX_SEED = (1 << 32) - 1  # NumPy's legacy generator accepts 32 bits


class Reproducibility(Section):
    experiment_seed: Annotated[int, IntRange(0, MAX_SEED)] | None = None
    """Seed for sampling all trials; absent: the time of submission in seconds."""


class Profiling(Section):
    enabled: bool = False
    """Whether to profile."""
    begin_on_batch: Count = 0
    """First batch to profile."""
    end_after_batch: Count | None = None
    """Last batch to profile."""
    sync_timings: bool = True
    """Synchronize with the GPU, so that each step gets its own time."""

    @model_validator(mode="after")
    def _ordered(self) -> Profiling:
        if self.end_after_batch is not None and self.end_after_batch < self.begin_on_batch:
            what = f"must be at least begin_on_batch, {self.begin_on_batch}, not {self.end_after_batch}"
            raise wrong(what, at=("end_after_batch",), later=True)
        return self


class Optimizations(Section):
    aggregation_frequency: Positive = 1
    """Batches to accumulate gradients over before an optimizer step."""
    average_aggregated_gradients: bool = True
    """Average accumulated gradients instead of summing them."""
    average_training_metrics: bool = True
    """Average training metrics over all slots of the trial."""
    gradient_compression: bool = False
    """Option of Horovod; no effect."""
    grad_updates_size_file: str | None = None
    """Option of Horovod; no effect."""
    mixed_precision: Literal["O0", "O1", "O2", "O3"] = "O0"
    """Level of NVIDIA Apex; O0 disables mixed precision."""
    tensor_fusion_threshold: Count = 64
    """Option of Horovod, in MB; no effect."""
    tensor_fusion_cycle_time: Count = 1
    """Option of Horovod, in ms; no effect."""
    auto_tune_tensor_fusion: bool = False
    """Option of Horovod; no effect."""
