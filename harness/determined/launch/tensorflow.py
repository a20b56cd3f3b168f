"""Determined's launcher for TensorFlow, which is not supported: fails with the replacement."""

from __future__ import annotations

import sys

from determined.launch._replaced import fail_unsupported

if __name__ == "__main__":
    sys.exit(
        fail_unsupported(
            "determined.launch.tensorflow: MultiWorkerMirroredStrategy spans hosts, but detbuild uses one",
            hint="use tf.distribute.MirroredStrategy in a script: `entrypoint: python3 train.py`",
        )
    )
