"""`DistributedContext`: the processes of a trial, for user code."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

from determined._group import Alone, Group, SocketGroup, joined
from determined._ranks import Rank, meeting_point

if TYPE_CHECKING:
    from types import TracebackType

_T = TypeVar("_T")
_PORT = 12360  # Determined's; here it only distinguishes groups on one host


class DistributedContext:
    """Ranks, and exchange of small values. All processes must call its methods in the same order.

    Args:
        rank: of this process.
        size: processes of the trial.
        local_rank: of this process on its host.
        local_size: processes on this host.
        cross_rank: of this host.
        cross_size: hosts.
        chief_ip: accepted for compatibility: all processes are on one host here.
        pub_port: distinguishes groups on one host.
        pull_port: accepted for compatibility.
        port_offset: added to pub_port.
        force_tcp: accepted for compatibility.
    """

    def __init__(  # noqa: PLR0913  (Determined's own signature)
        self,
        *,
        rank: int,
        size: int,
        local_rank: int,
        local_size: int,
        cross_rank: int,
        cross_size: int,
        chief_ip: str | None = None,
        pub_port: int = _PORT,
        pull_port: int = 0,  # noqa: ARG002  (Determined's own signature)
        port_offset: int = 0,
        force_tcp: bool = False,  # noqa: ARG002  (Determined's own signature)
    ) -> None:
        found = Rank(
            rank=rank,
            size=size,
            local_rank=local_rank,
            local_size=local_size,
            cross_rank=cross_rank,
            cross_size=cross_size,
        )
        point = f"{chief_ip or ''}/{pub_port + port_offset}"
        self._adopt(found, joined(found, point), f"{point}/{cross_rank}")

    def _adopt(self, rank: Rank, group: Group, local_point: str) -> None:
        self.rank, self.size = rank.rank, rank.size
        self.local_rank, self.local_size = rank.local_rank, rank.local_size
        self.cross_rank, self.cross_size = rank.cross_rank, rank.cross_size
        self.group = group
        whole = rank.local_size == rank.size
        self._local = group if whole else _local_group(rank, local_point)

    @classmethod
    def of(cls, rank: Rank, group: Group) -> DistributedContext:
        """Return the context of an existing group."""
        context = cls.__new__(cls)
        context._adopt(rank, group, f"{meeting_point(os.environ)}/local")  # noqa: SLF001  (its own other half)
        return context

    @classmethod
    def alone(cls) -> DistributedContext:
        return cls.of(Rank(), Alone())

    @classmethod
    def from_torch_distributed(
        cls,
        chief_ip: str | None = None,  # noqa: ARG003  (all processes are on one host)
    ) -> DistributedContext:
        """Return the context of the processes that torch's or detbuild's launcher started.

        Raises:
            ValueError: no launcher started this process.
        """
        rank = Rank.from_environ(os.environ)
        if rank is None:
            raise ValueError(
                "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, GROUP_WORLD_SIZE are not set: "
                "start the script with python3 -m determined.launch.torch_distributed, or torchrun"
            )
        return cls.of(rank, environment_group())

    from_deepspeed = from_torch_distributed

    @classmethod
    def from_horovod(cls, hvd: Any, chief_ip: str | None = None) -> DistributedContext:  # noqa: ANN401  (a module)
        """Return the context of the processes that Horovod started."""
        return cls(
            rank=hvd.rank(),
            size=hvd.size(),
            local_rank=hvd.local_rank(),
            local_size=hvd.local_size(),
            cross_rank=hvd.cross_rank(),
            cross_size=hvd.cross_size(),
            chief_ip=chief_ip,
        )

    @classmethod
    def from_tf_config(cls, chief_ip: str | None = None) -> DistributedContext:
        """Return the context of the processes in TF_CONFIG, one on each host.

        Raises:
            ValueError: TF_CONFIG is not set.
        """
        if "TF_CONFIG" not in os.environ:
            raise ValueError("TF_CONFIG is not set: it lists the processes of TensorFlow")
        config = json.loads(os.environ["TF_CONFIG"])
        workers, index = len(config["cluster"]["worker"]), int(config["task"]["index"])
        return cls(
            rank=index,
            size=workers,
            local_rank=index,
            local_size=workers,
            cross_rank=0,
            cross_size=1,
            chief_ip=chief_ip,
        )

    def get_rank(self) -> int:
        return self.rank

    def get_size(self) -> int:
        return self.size

    def get_local_rank(self) -> int:
        return self.local_rank

    def get_num_agents(self) -> int:
        return self.cross_size

    def gather(self, stuff: _T) -> list[_T] | None:
        """Return all processes' values by rank on the chief; None elsewhere."""
        return self.group.gather(stuff)

    def gather_local(self, stuff: _T) -> list[_T] | None:
        return self._local.gather(stuff)

    def allgather(self, stuff: _T) -> list[_T]:
        """Return all processes' values by rank."""
        return self.group.allgather(stuff)

    def allgather_local(self, stuff: _T) -> list[_T]:
        return self._local.allgather(stuff)

    def broadcast(self, stuff: _T) -> _T:
        """Return the chief's value."""
        return self.group.broadcast(stuff)

    def broadcast_local(self, stuff: _T | None = None) -> _T | None:
        """Return the value of the first process on this host."""
        return self._local.broadcast(stuff)

    def close(self) -> None:
        self._local.close()
        self.group.close()

    def __enter__(self) -> DistributedContext:  # noqa: PYI034  (typing.Self is not in Python 3.10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DummyDistributedContext(DistributedContext):
    """The context of a single process, for scripts without a launcher."""

    def __init__(self) -> None:
        self._adopt(Rank(), Alone(), "")


@functools.cache
def environment_group() -> Group:
    """Return the group of all processes of this launch, shared within this process."""
    rank = Rank.from_environ(os.environ) or Rank()
    return joined(rank, meeting_point(os.environ))


def _local_group(rank: Rank, point: str) -> Group:
    return SocketGroup(rank.local_rank, rank.local_size, point) if rank.local_size > 1 else Alone()
