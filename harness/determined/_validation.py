"""What is common to the validations of every framework, apart from the loop that makes them due."""

from __future__ import annotations

import logging

_LOG = logging.getLogger(__name__)
_TIMES = 10  # as many batches as were trained since the last validation
_FEW = 100  # batches


class LengthWatch:
    """Says once that a validation whose length is not known has become long."""

    def __init__(self) -> None:
        self._limit = self._batches = 0
        self._trained_before = 0
        self._warned = False

    def begin(self, trained: int) -> None:
        """A validation begins after so many batches of training."""
        self._limit = max(_FEW, _TIMES * (trained - self._trained_before))
        self._batches, self._trained_before = 0, trained

    def batch(self) -> None:
        """Another batch is validated."""
        self._batches += 1
        if self._batches >= self._limit and not self._warned:
            self._warned = True
            _LOG.warning(
                "validation has taken %d batches, %d times the training since the last one, and its data "
                "has no known length; if it has no end, limit what build_validation_data_loader returns",
                self._batches,
                _TIMES,
            )
