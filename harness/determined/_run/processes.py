"""The processes of one run, which exchange small values over local sockets: counts, metrics, decisions.

It is not used for gradients, needs no framework and has no time limit of its own. When a process ends, all
others get a GroupError at once instead of a deadlock. Ranks come from the variables of torch's launcher;
user code sees the processes as a `DistributedContext`.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from determined._contract.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_T = TypeVar("_T")
_JOIN = 300.0  # seconds for all processes to connect
_RETRY = 0.02
_HEADER = struct.Struct("!Q")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_HINT = "see the output of the other processes: the first one to end shows the cause"
_PORT = 12360  # Determined's; here it only distinguishes groups on one host
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


class GroupError(HarnessError):
    """Another process of the run has ended, or calls another method than this one."""


class Group(Protocol):
    """All processes call the same methods in the same order."""

    rank: int
    size: int

    def gather(self, value: _T) -> list[_T] | None:
        """Return all processes' values by rank on rank 0; None elsewhere."""

    def allgather(self, value: _T, timeout: float | None = None) -> list[_T]:
        """Return all processes' values by rank.

        Args:
            value: any picklable object.
            timeout: seconds to wait for the others; None waits while they live.

        Raises:
            GroupError: one of them has ended, calls another method, or was late.
        """

    def broadcast(self, value: _T) -> _T:
        """Return rank 0's value."""

    def close(self) -> None: ...


class Alone:
    """The group of one process."""

    rank, size = 0, 1

    def gather(self, value: _T) -> list[_T] | None:
        return [value]

    def allgather(self, value: _T, timeout: float | None = None) -> list[_T]:  # noqa: ARG002  (a single process does not wait)
        return [value]

    def broadcast(self, value: _T) -> _T:
        return value

    def close(self) -> None: ...


class SocketGroup:
    """Several processes: each is connected to rank 0.

    Args:
        rank: of this process.
        size: number of processes.
        point: a name that all of them know, unique on this host.
        join: seconds for all of them to connect.
    """

    def __init__(self, rank: int, size: int, point: str, join: float = _JOIN) -> None:
        self.rank, self.size = rank, size
        address = f"\0detbuild/{os.getuid()}/{point}"[:100]  # abstract: leaves no file; Linux takes 108 bytes
        end = time.monotonic() + join
        if rank == 0:
            self._peers = _accepted(address, size, end)
        else:
            self._peers = {0: _connected(address, rank, end)}

    def gather(self, value: _T) -> list[_T] | None:
        if self.rank:
            self._send(0, "gather", value)
            return None
        return self._collected("gather", value)

    def allgather(self, value: _T, timeout: float | None = None) -> list[_T]:
        if self.rank:
            self._send(0, "allgather", value)
            everyone: list[_T] = self._receive(0, "allgather", timeout)
            return everyone
        everyone = self._collected("allgather", value, timeout)
        for rank in self._peers:
            self._send(rank, "allgather", everyone)
        return everyone

    def broadcast(self, value: _T) -> _T:
        if self.rank:
            received: _T = self._receive(0, "broadcast")
            return received
        for rank in self._peers:
            self._send(rank, "broadcast", value)
        return value

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()

    def _collected(self, what: str, value: _T, timeout: float | None = None) -> list[_T]:
        return [value, *(self._receive(rank, what, timeout) for rank in sorted(self._peers))]

    def _send(self, rank: int, what: str, value: object) -> None:
        data = pickle.dumps((what, value))
        with suppress(OSError):  # a process that ended may have sent its reason, which `_receive` finds
            self._peers[rank].sendall(_HEADER.pack(len(data)) + data)

    def _receive(self, rank: int, what: str, timeout: float | None = None) -> Any:  # noqa: ANN401  (as it was sent)
        peer = self._peers[rank]
        peer.settimeout(timeout)
        try:
            (length,) = _HEADER.unpack(_read(peer, _HEADER.size))
            sent_for, value = pickle.loads(_read(peer, length))  # noqa: S301  (the kernel vouches for its user)
        except TimeoutError as error:
            raise GroupError(f"rank {rank} did not answer within {timeout:g} s", hint=_HINT) from error
        except OSError as error:
            raise GroupError(f"rank {rank} has ended, or closed its connection", hint=_HINT) from error
        if sent_for != what:
            raise GroupError(
                f"rank {self.rank} is at a {what} and rank {rank} at a {sent_for}",
                hint="call the same methods in the same order in all processes",
            )
        return value


def _accepted(address: str, size: int, end: float) -> dict[int, socket.socket]:
    peers: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        _bind(listener, address, end)
        listener.listen(size)
        while len(peers) < size - 1:
            listener.settimeout(max(end - time.monotonic(), _RETRY))
            try:
                peer, _ = listener.accept()
            except TimeoutError as error:
                absent = sorted(set(range(1, size)) - set(peers))
                raise GroupError(f"rank {absent[0]} did not start", hint=_HINT) from error
            if not _same_user(peer):
                peer.close()
                continue
            (rank,) = _HEADER.unpack(_read(peer, _HEADER.size))
            peers[rank] = peer
    return peers


def _bind(listener: socket.socket, address: str, end: float) -> None:
    while not _bound(listener, address):  # another group of this name is starting
        if time.monotonic() > end:
            raise GroupError(f"the address {address[1:]} is in use", hint="end the processes that use it")
        time.sleep(_RETRY)


def _bound(listener: socket.socket, address: str) -> bool:
    try:
        listener.bind(address)
    except OSError:
        return False
    return True


def _connected(address: str, rank: int, end: float) -> socket.socket:
    while (peer := _answered(address)) is None:
        if time.monotonic() > end:
            raise GroupError("rank 0 did not start", hint=_HINT)
        time.sleep(_RETRY)
    if not _same_user(peer):
        peer.close()
        raise GroupError("another user of this host uses the address of rank 0")
    peer.sendall(_HEADER.pack(rank))
    return peer


def _answered(address: str) -> socket.socket | None:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(address)
    except OSError:
        peer.close()
        return None
    return peer


def _same_user(peer: socket.socket) -> bool:
    """Whether the peer runs as our own user: received data is unpickled, so it must be trusted."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return bool(user == os.getuid())


def _read(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("end of stream")
        data += piece
    return bytes(data)


def joined(rank: Rank, point: str, join: float = _JOIN) -> Group:
    """Return the group of the processes with these ranks."""
    return SocketGroup(rank.rank, rank.size, point, join) if rank.size > 1 else Alone()


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
