"""The rank of this process, from the environment variables of torch's launcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP_DIR_VARIABLE = (
    "DETBUILD_GROUP_DIR"  # set by detbuild's launcher: where the processes of one run find each other
)
RANK_VARIABLE = "RANK"
_VARIABLES = {
    "rank": RANK_VARIABLE,
    "size": "WORLD_SIZE",
    "local_rank": "LOCAL_RANK",
    "local_size": "LOCAL_WORLD_SIZE",
    "cross_rank": "GROUP_RANK",
    "cross_size": "GROUP_WORLD_SIZE",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One of `size` processes, `local_size` of them on its host, and one of `cross_size` hosts."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    cross_rank: int = 0
    cross_size: int = 1

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Rank | None:
        """Return None if no launcher started this process."""
        if any(variable not in environ for variable in _VARIABLES.values()):
            return None
        return cls(**{name: int(environ[variable]) for name, variable in _VARIABLES.items()})


def alone_environ(port: int) -> dict[str, str]:
    """Return the variables of torch's launcher for a single process."""
    values = {variable: str(getattr(Rank(), name)) for name, variable in _VARIABLES.items()}
    return {**values, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "USE_TORCH_DISTRIBUTED": "True"}


def meeting_point(environ: Mapping[str, str]) -> str:
    """Return a name that all processes of one launch share, unique on this host."""
    known = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return environ.get(GROUP_DIR_VARIABLE) or "/".join(environ.get(name, "") for name in known)
