"""The random states of Python and numpy: capture and restore."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from determined._trial.state import seed_python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.keras._types import Untyped


def capture() -> Untyped:
    return random.getstate(), np.random.get_state()  # noqa: NPY002  (user code draws from this generator)


def restore(state: Untyped) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002  (user code draws from this generator)


@contextmanager
def preserved(seed: int | None = None) -> Iterator[None]:
    """Restore the random states after the block; with `seed`, seed them inside it."""
    state = capture()
    if seed is not None:
        seed_python(seed)
    try:
        yield
    finally:
        restore(state)
