"""Determined's launcher for DeepSpeed, which is not supported: fails with the replacement."""

from __future__ import annotations

import sys

from determined.launch._replaced import fail_unsupported

if __name__ == "__main__":
    sys.exit(
        fail_unsupported(
            "determined.launch.deepspeed: detbuild does not support DeepSpeedTrial",
            hint="start the script with `python3 -m determined.launch.torch_distributed`, and call "
            "deepspeed.init_distributed() in it",
        )
    )
