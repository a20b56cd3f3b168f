"""The processes of one run, which exchange small values over local sockets: counts, metrics, decisions.

It is not used for gradients, needs no framework and has no time limit of its own. When a process ends, all
others get a GroupError at once instead of a deadlock.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from determined._errors import HarnessError

if TYPE_CHECKING:
    from determined._ranks import Rank

_T = TypeVar("_T")
_JOIN = 300.0  # seconds for all processes to connect
_RETRY = 0.02
_HEADER = struct.Struct("!Q")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_HINT = "see the output of the other processes: the first one to end shows the cause"


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
