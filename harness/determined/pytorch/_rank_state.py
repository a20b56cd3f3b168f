"""The per-process state in a checkpoint: random states, gradients, position in the data.

The state of rank 0 is in the checkpoint's main file, as in a run of one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from determined._trial.state import derive
from determined.pytorch import _rng
from determined.pytorch._portable import freeze, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from determined._run.processes import Group

_FOLDER = "ranks"


def write(directory: Path, state: Mapping[str, Any], group: Group) -> None:
    """Write this rank's file into the checkpoint."""
    folder = directory / _FOLDER
    folder.mkdir(exist_ok=True)
    frozen = {key: freeze(value, f"{key} of rank {group.rank}") for key, value in state.items()}
    torch.save({"size": group.size, **frozen}, folder / f"{group.rank}.pth")


def own(directory: Path, state: dict[str, Any], group: Group, seed: int) -> dict[str, Any]:
    """Return the state of a checkpoint for this rank.

    If the checkpoint is from another number of processes, this rank gets new random states and starts its
    gradient aggregation from zero.

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
    """Give each rank its own seed, after all ranks built equal trials from equal seeds."""
    if group.rank:
        _rng.seed_all(derive(seed, "rank", group.rank))
