"""`TorchWriter`, with which trials write images, histograms and scalars to TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.run_info import RunInfo
from determined.pytorch._tensorboard import TensorBoardWriter

if TYPE_CHECKING:
    from determined.pytorch._device import Untyped


class TorchWriter:
    """A SummaryWriter for the trial's TensorBoard path; it does nothing without the package tensorboard.

    Outside a run it writes to `runs` in the working directory, as torch's writer does.
    """

    def __init__(self) -> None:
        info = RunInfo.from_environ(os.environ)
        self._board = TensorBoardWriter(Path(info.run_dir) / "tensorboard" if info else Path("runs"))

    @property
    def writer(self) -> Untyped:
        """The `torch.utils.tensorboard.SummaryWriter`."""
        return self._board.writer

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)

    def reset(self) -> None:
        """Flush to disk."""
        self.writer.flush()
