"""The global random states of Python, numpy and torch, as plain values that safe loading accepts."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from determined._trial.state import seed_python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined.pytorch._types import Untyped

State = dict[str, Any]


def seed_trial(seed: int) -> None:
    """Seed all generators before a trial is created, also those of GPUs that are not initialized yet."""
    seed_all(seed)
    torch.cuda.manual_seed_all(seed)


def seed_all(seed: int) -> None:
    seed_python(seed)
    torch.default_generator.manual_seed(seed)
    if _on_gpu():
        torch.cuda.manual_seed_all(seed)


def capture() -> State:
    """Capture the states under the keys of Determined's checkpoints."""
    numpy = sys.modules.get("numpy")
    state = as_state(torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state())
    if _on_gpu():
        state["gpu_rng_state"] = torch.cuda.get_rng_state()
    return state


def as_state(torchs: torch.Tensor, pythons: object, numpys: Untyped) -> State:
    """Return the states of torch, Python and numpy (or None) as plain values."""
    state: State = {"cpu_rng_state": torchs, "random_rng_state": pythons}
    if numpys is not None:
        kind, keys, *rest = numpys
        state["np_rng_state"] = (kind, torch.as_tensor(keys.astype("int64")), *rest)
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Restore a captured state or a part of it; its tensors may be on any device."""
    if "cpu_rng_state" in state:
        torch.set_rng_state(state["cpu_rng_state"].cpu())
    if "random_rng_state" in state:
        random.setstate(tuples(state["random_rng_state"]))
    if state.get("np_rng_state") is not None:
        import numpy as np

        kind, keys, *rest = state["np_rng_state"]
        keys = torch.as_tensor(keys).cpu().numpy().astype("uint32")
        np.random.set_state((kind, keys, *rest))  # noqa: NPY002  (user code draws from this generator)
    if state.get("gpu_rng_state") is not None and _on_gpu():
        torch.cuda.set_rng_state(state["gpu_rng_state"].cpu())


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the random states after the block."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def tuples(value: Untyped) -> Untyped:
    """Convert nested lists from a checkpoint back to tuples."""
    return tuple(tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _on_gpu() -> bool:
    """Whether this process uses a GPU; the check must not initialize CUDA."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
