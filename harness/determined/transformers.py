"""`DetCallback` for Hugging Face trainers is not carried. Importing this module says what does its work."""

from __future__ import annotations

from determined._errors import RemovedError

raise RemovedError(
    "determined.transformers.DetCallback is not carried by detbuild",
    mend="in a transformers.TrainerCallback of your own, call core_context.train.report_training_metrics "
    "in on_log, core_context.checkpoint.upload in on_save and core_context.preempt.should_preempt in "
    "on_step_end",
)
