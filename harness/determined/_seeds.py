"""One independent seed per purpose, derived from the trial's seed."""

from __future__ import annotations

import hashlib
import importlib.util
import random

_NUMPY_SEEDS = 1 << 32


def derive(seed: int, *purpose: object) -> int:
    """Return a seed below 2**63, unique to the arguments."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_python(seed: int) -> None:
    """Seed the global generators of Python and, if installed, of numpy."""
    random.seed(seed)
    if importlib.util.find_spec("numpy") is not None:
        import numpy as np

        np.random.seed(seed % _NUMPY_SEEDS)  # noqa: NPY002  (user code draws from this generator)
