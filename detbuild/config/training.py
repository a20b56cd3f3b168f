"""Sections that steer training itself: optimizations, profiling, seeds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from detbuild.config.fields import Count, Positive, Whole
from detbuild.config.section import Section, wrong

MAX_SEED = (1 << 32) - 1  # NumPy's legacy generator takes 32 bits


class Reproducibility(Section):
    experiment_seed: Annotated[int, Whole(0, MAX_SEED)] | None = None  # None: drawn at submission


class Profiling(Section):
    enabled: bool = False
    begin_on_batch: Count = 0
    end_after_batch: Count | None = None
    sync_timings: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Profiling:
        if self.end_after_batch is not None and self.end_after_batch < self.begin_on_batch:
            what = f"must be at least begin_on_batch, {self.begin_on_batch}, not {self.end_after_batch}"
            raise wrong(what, at=("end_after_batch",), later=True)
        return self


class Optimizations(Section):
    aggregation_frequency: Positive = 1
    average_aggregated_gradients: bool = True
    average_training_metrics: bool = True
    gradient_compression: bool = False
    grad_updates_size_file: str | None = None
    mixed_precision: Literal["O0", "O1", "O2", "O3"] = "O0"
    tensor_fusion_threshold: Count = 64  # MB
    tensor_fusion_cycle_time: Count = 1  # ms
    auto_tune_tensor_fusion: bool = False
