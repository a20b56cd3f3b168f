"""The processes of one trial, as user code sees them. One process is the whole of it so far."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


class SingleProcess:
    """`context.distributed` of a trial that has one process."""

    rank = local_rank = cross_rank = 0
    size = local_size = cross_size = 1

    def get_rank(self) -> int:
        return self.rank

    def get_local_rank(self) -> int:
        return self.local_rank

    def get_size(self) -> int:
        return self.size

    def get_num_agents(self) -> int:
        return self.cross_size

    def gather(self, stuff: _T) -> list[_T]:
        return [stuff]

    def allgather(self, stuff: _T) -> list[_T]:
        return [stuff]

    def broadcast(self, stuff: _T) -> _T:
        return stuff

    gather_local, allgather_local, broadcast_local = gather, allgather, broadcast
