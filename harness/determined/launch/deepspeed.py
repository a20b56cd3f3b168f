"""Determined's launcher for DeepSpeed, which is not carried: it names what takes its place."""

from __future__ import annotations

import sys

from determined.launch._replaced import refuse

if __name__ == "__main__":
    sys.exit(
        refuse(
            "determined.launch.deepspeed: detbuild carries no DeepSpeedTrial",
            hint="start the script with `python3 -m determined.launch.torch_distributed`, and in it call "
            "deepspeed.init_distributed()",
        )
    )
