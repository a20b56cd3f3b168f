"""GPUs that are none: CDI devices that an engine hands to containers for the time of a test."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

SPEC = Path("/etc/cdi/detbuild-test.json")
KIND = "nvidia.com/gpu"


@contextmanager
def fake_gpus(count: int = 2):
    """Yield the names "nvidia.com/gpu=0" and so on. Inside, each is a node /dev/nvidia<n> and FAKE_GPU_<n>=1.

    The specification is removed in the end. Needs root, and an engine that runs on this host.
    """
    SPEC.parent.mkdir(parents=True, exist_ok=True)
    temporary = SPEC.with_suffix(f".{os.getpid()}")  # no ending that the engine would read
    temporary.write_text(json.dumps(_spec(count)))
    temporary.replace(SPEC)
    try:
        yield tuple(f"{KIND}={number}" for number in range(count))
    finally:
        SPEC.unlink(missing_ok=True)


def _spec(count: int) -> dict[str, object]:
    return {
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "devices": [
            {
                "name": str(number),
                "containerEdits": {
                    "env": [f"FAKE_GPU_{number}=1"],
                    "deviceNodes": [{"path": f"/dev/nvidia{number}", "hostPath": "/dev/null"}],
                },
            }
            for number in range(count)
        ],
    }
