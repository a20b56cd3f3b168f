"""Determined's launcher for Horovod, which is not supported: fails with the replacement."""

from __future__ import annotations

import sys

from determined.launch._replaced import fail_unsupported

if __name__ == "__main__":
    sys.exit(
        fail_unsupported(
            "determined.launch.horovod: Horovod is no longer maintained",
            hint="use determined.launch.torch_distributed instead: PyTorch trials need no change",
        )
    )
