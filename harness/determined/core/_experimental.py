"""`core_context.experimental`: reports to Determined's master, which are logged instead."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("determined.core")


class ExperimentalCoreContext:
    def report_task_using_checkpoint(self, checkpoint: object) -> None:
        _LOG.info("the script uses checkpoint %s", getattr(checkpoint, "uuid", checkpoint))

    def report_task_using_model_version(self, model_version: object) -> None:
        _LOG.info("the script uses model version %s", model_version)

    def alert(self, title: str = "", description: str = "", level: str = "info") -> None:
        """Log the alert: there is no webhook."""
        _LOG.warning("%s: %s: %s", level, title, description)
