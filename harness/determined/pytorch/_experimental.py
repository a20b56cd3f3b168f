"""`context.experimental`: the experimental options of Determined's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Experimental:
    def __init__(self, wrap_amp: Callable[[], None]) -> None:
        self._wrap_amp = wrap_amp
        self.foreign_loaders = False
        self.auto_to_device = True

    def use_amp(self) -> None:
        """Use mixed precision without changes to `train_batch`. Call it before `wrap_model`."""
        self._wrap_amp()

    def disable_dataset_reproducibility_checks(self) -> None:
        """Allow loaders that are not `determined.pytorch.DataLoader`."""
        self.foreign_loaders = True

    def disable_auto_to_device(self) -> None:
        """Do not move batches to the device; the trial calls `context.to_device` itself."""
        self.auto_to_device = False
