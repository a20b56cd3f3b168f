"""Determined's launcher for Horovod, which is not supported: fails with the replacement."""

from __future__ import annotations

import sys

from determined.launch._replaced import refuse

if __name__ == "__main__":
    sys.exit(
        refuse(
            "determined.launch.horovod: Horovod is no longer maintained",
            hint="use determined.launch.torch_distributed instead: PyTorch trials need no change",
        )
    )
