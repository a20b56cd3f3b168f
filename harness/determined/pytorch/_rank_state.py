"""What each process of a trial has of its own in a checkpoint: random states, gradients, place in the data.

Rank 0's is in the checkpoint's main file, where a run of one process has it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from determined._seeds import derive
from determined.pytorch import _rng
from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined._group import Group

_FOLDER = "ranks"


def write(directory: Path, state: Mapping[str, Any], group: Group) -> None:
    """Write this rank's file into the checkpoint."""
    folder = directory / _FOLDER
    folder.mkdir(exist_ok=True)
    frozen = {key: freeze(value, f"{key} of rank {group.rank}") for key, value in state.items()}
    torch.save({"size": group.size, **frozen}, folder / f"{group.rank}.pth")


def own(directory: Path, state: dict[str, Any], group: Group, seed: int) -> dict[str, Any]:
    """The state of a checkpoint as this rank needs it.

    A checkpoint of another number of processes knows nothing of this rank: it gets random numbers of its own
    and begins its part of an aggregation afresh.

    Args:
        directory: the checkpoint.
        state: of its main file.
        group: the processes of this run.
        seed: of the trial.
    """
    if group.rank == 0:
        return state
    path = directory / _FOLDER / f"{group.rank}.pth"
    found = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    if found.pop("size", 0) == group.size:
        state = {key: value for key, value in state.items() if key != "gradients"}
        return {**state, **{key: thaw(value) for key, value in found.items()}}
    with _rng.preserved():
        _rng.seed_all(derive(seed, "rank", group.rank, "from", directory.name))
        fresh = _rng.capture()
    return {**{key: value for key, value in state.items() if key != "gradients"}, "rng_state": fresh}


def scatter_seeds(group: Group, seed: int) -> None:
    """Processes build equal trials from equal seeds; from here on each draws numbers of its own."""
    if group.rank:
        _rng.seed_all(derive(seed, "rank", group.rank))
