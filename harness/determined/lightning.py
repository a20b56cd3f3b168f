"""`DetLogger` for Lightning is not carried. Importing this module says what does its work."""

from __future__ import annotations

from determined._errors import RemovedError

raise RemovedError(
    "determined.lightning is not carried by detbuild",
    mend="log with Lightning's CSVLogger, and report with core_context.train.report_training_metrics "
    "in a callback: examples/core_api shows the calls",
)
