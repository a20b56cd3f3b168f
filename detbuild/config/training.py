"""Sections that steer training itself: optimizations, profiling, seeds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from detbuild.config.fields import Count, Positive, Whole
from detbuild.config.section import Section, wrong

MAX_SEED = (1 << 32) - 1  # NumPy's legacy generator takes 32 bits


class Reproducibility(Section):
    experiment_seed: Annotated[int, Whole(0, MAX_SEED)] | None = None
    """From which all trials are drawn; absent: the time of submission, in seconds."""


class Profiling(Section):
    enabled: bool = False
    """Whether to measure."""
    begin_on_batch: Count = 0
    """The first batch that is measured."""
    end_after_batch: Count | None = None
    """The last one."""
    sync_timings: bool = True
    """Wait for the GPU, so that times are told of the step that took them."""

    @model_validator(mode="after")
    def _ordered(self) -> Profiling:
        if self.end_after_batch is not None and self.end_after_batch < self.begin_on_batch:
            what = f"must be at least begin_on_batch, {self.begin_on_batch}, not {self.end_after_batch}"
            raise wrong(what, at=("end_after_batch",), later=True)
        return self


class Optimizations(Section):
    aggregation_frequency: Positive = 1
    """Batches whose gradients are added up before a step."""
    average_aggregated_gradients: bool = True
    """Divide them by that number."""
    average_training_metrics: bool = True
    """Average training metrics over all slots of the trial."""
    gradient_compression: bool = False
    """Of Horovod; without meaning here."""
    grad_updates_size_file: str | None = None
    """Of Horovod; without meaning here."""
    mixed_precision: Literal["O0", "O1", "O2", "O3"] = "O0"
    """The level of NVIDIA's Apex; O0 is none."""
    tensor_fusion_threshold: Count = 64
    """Of Horovod, in MB; without meaning here."""
    tensor_fusion_cycle_time: Count = 1
    """Of Horovod, in ms; without meaning here."""
    auto_tune_tensor_fusion: bool = False
    """Of Horovod; without meaning here."""
