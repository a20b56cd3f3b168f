"""Determined's launcher for TensorFlow, which is not supported: fails with the replacement."""

from __future__ import annotations

import sys

from determined.launch._replaced import refuse

if __name__ == "__main__":
    sys.exit(
        refuse(
            "determined.launch.tensorflow: MultiWorkerMirroredStrategy needs several hosts, detbuild uses one",
            hint="use tf.distribute.MirroredStrategy in a script: `entrypoint: python3 train.py`",
        )
    )
