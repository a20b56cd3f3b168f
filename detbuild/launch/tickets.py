"""Who waits for slots on this host: one ticket file for each controller that does, gone when its holder is.

They lie in a directory that all users share, as /tmp is shared: whatever is in there may have been put
there to trick us. A ticket counts for the user who owns the file, while somebody holds it by a lock. Every
method is called under the host's lock. Nothing here decides whether a GPU is free: that is what containers
say.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import stat
import weakref
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Literal

from detbuild.errors import EngineError
from detbuild.launch.share import PRIORITY, Memory, Use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Kind = Literal["gpu", "cpu"]
_LARGEST: Final = 1 << 20  # bytes of a file that is read
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, no pipe waited for
_DEAD: Final = 3600.0  # seconds for which a ticket without a holder keeps its place for the next one


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """The trials of one experiment that wait for slots."""

    engine: str  # id of the engine whose slots they are
    kind: Kind
    user: str  # uid
    experiment: str  # "<home id>/<number>"
    slots: int  # that each trial needs
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None
    asked: float = 0.0  # when its holder last looked, in seconds on the host's clock
    waiting: Mapping[str, float]  # trial -> since when


class Tickets:
    """The directory of one host; this controller's own ticket among them, once it has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = -1  # that is held

    @property
    def held(self) -> bool:
        """Whether this process shows a ticket."""
        return self._file >= 0

    def others(self, own: str = "") -> tuple[Ticket, ...]:
        """All tickets that somebody holds, but for that of the experiment `own`."""
        name = _ticket_name(own)
        with self._opened() as directory:
            found = [_read_ticket(directory, entry) for entry in _tickets(directory) if entry != name]
        return tuple(ticket for ticket in found if ticket is not None)

    def waiting(self, experiment: str) -> dict[str, float]:
        """What a ticket of this experiment says that an earlier controller left: trial -> since when."""
        with self._opened() as directory, _existing(directory, _ticket_name(experiment)) as file:
            ticket = _parsed(file) if file is not None else None
        return dict(ticket.waiting) if ticket is not None else {}

    def hold(self, ticket: Ticket) -> None:
        """Show the ticket to everybody, for as long as this process lives.

        It is not shown where the host has no room for it, or somebody else's file has its name: the
        experiment then waits without a place in the line.
        """
        if self._file < 0 or not _plain(self._file):  # it may have been swept away with its directory
            with self._opened() as directory:
                self._file = _taken(directory, _ticket_name(ticket.experiment))
            if self._file < 0:
                return
            weakref.finalize(self, os.close, self._file)
            self.sweep(now=ticket.asked)
        _write(self._file, json.dumps(asdict(ticket)).encode())

    def sweep(self, *, now: float) -> None:
        """Remove what dead holders left, as far as it is ours to remove."""
        with self._opened() as directory:
            for name in _tickets(directory):
                with _existing(directory, name) as file:
                    if file is None or not _lock(file):
                        continue
                    ticket = _parsed(file)
                    if ticket is None or not 0 <= now - ticket.asked <= _DEAD:
                        with suppress(OSError):
                            os.unlink(name, dir_fd=directory)

    def memory(self, engine: str, kind: Kind) -> Memory:
        """What the host remembers of the slots of an engine."""
        with self._opened() as directory, _existing(directory, _memory_name(engine, kind)) as file:
            raw = _json(file) if file is not None else None
        return _memory(raw) if isinstance(raw, dict) else Memory()

    def remember(self, engine: str, kind: Kind, memory: Memory) -> None:
        """Keep it for the next look, whoever's that is."""
        used = [(name, use.cost, use.seen) for name, use in memory.used.items()]
        data = json.dumps({"at": memory.at, "first": memory.first, "used": used}).encode()
        with self._opened() as directory:
            file = _open_shared(directory, _memory_name(engine, kind))
            if file >= 0:
                try:
                    _write(file, data)
                finally:
                    os.close(file)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory itself, so that nobody can put another in its place meanwhile."""
        try:
            descriptor = _directory(self.directory)
        except OSError as error:
            raise EngineError(
                f"cannot open {self.directory}: {error.strerror}", mend="remove what is in its place"
            ) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _directory(path: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):
        path.mkdir(mode=0o1777)
        path.chmod(0o1777)  # whatever the umask is
    return os.open(path, flags)


def _tickets(directory: int) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith("wait-"))


def _ticket_name(experiment: str) -> str:
    return f"wait-{experiment.replace('/', '-')}"


def _memory_name(engine: str, kind: Kind) -> str:
    return f"memory-{kind}-{hashlib.sha256(engine.encode()).hexdigest()[:16]}"


def _taken(directory: int, name: str) -> int:
    """Open and lock our own ticket, anew if another process holds that; -1 when that cannot be.

    An experiment has one controller, so whoever holds its ticket besides has done its part, or means harm.
    """
    for _ in range(2):
        try:
            file = os.open(name, os.O_RDWR | os.O_CREAT | _SAFELY, 0o644, dir_fd=directory)
        except OSError:
            return -1
        if _plain(file) and os.fstat(file).st_uid == os.geteuid() and _lock(file):
            os.fchmod(file, 0o644)  # whatever the umask is
            return file
        os.close(file)
        with suppress(OSError):  # not ours: it stays
            os.unlink(name, dir_fd=directory)
    return -1


def _open_shared(directory: int, name: str) -> int:
    """Open a file that all users write; -1 when that cannot be.

    The kernel refuses O_CREAT on somebody else's file here (fs.protected_regular): it is tried without first.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):
        try:
            file = os.open(name, flags | _SAFELY, 0o666, dir_fd=directory)
        except OSError:
            continue
        if _plain(file):
            with suppress(OSError):  # somebody else's, who has seen to it
                os.fchmod(file, 0o666)
            return file
        os.close(file)
    return -1


@contextmanager
def _existing(directory: int, name: str) -> Iterator[int | None]:
    try:
        file = os.open(name, os.O_RDONLY | _SAFELY, dir_fd=directory)
    except OSError:
        yield None
        return
    try:
        yield file if _plain(file) else None
    finally:
        os.close(file)


def _plain(file: int) -> bool:
    """A file with this one name: another name of a file elsewhere would let us write there."""
    found = os.fstat(file)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_ticket(directory: int, name: str) -> Ticket | None:
    """A ticket that somebody holds; one that can be locked is nobody's."""
    with _existing(directory, name) as file:
        if file is None or _lock(file):
            return None
        ticket = _parsed(file)
        if ticket is None or _ticket_name(ticket.experiment) != name:
            return None
        owner = os.fstat(file).st_uid
        return ticket if owner == 0 else replace(ticket, user=str(owner))


def _parsed(file: int) -> Ticket | None:
    raw = _json(file)
    if not isinstance(raw, dict) or raw.keys() != {each.name for each in fields(Ticket)}:
        return None
    try:
        return Ticket(
            engine=str(raw["engine"]),
            kind="gpu" if raw["kind"] == "gpu" else "cpu",
            user=str(raw["user"]),
            experiment=str(raw["experiment"]),
            slots=max(1, int(raw["slots"])),
            priority=int(raw["priority"]),
            weight=_finite(raw["weight"]),
            max_slots=None if raw["max_slots"] is None else int(raw["max_slots"]),
            asked=_finite(raw["asked"]),
            waiting={str(trial): _finite(since) for trial, since in raw["waiting"].items()},
        )
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None


def _memory(raw: Mapping[str, object]) -> Memory:
    try:
        used = {str(name): Use(_finite(cost), _finite(seen)) for name, cost, seen in _rows(raw["used"])}
        return Memory(at=_finite(raw["at"]), first=str(raw["first"]), used=used)
    except (TypeError, KeyError, ValueError):
        return Memory()


def _rows(value: object) -> list[tuple[object, object, object]]:
    if not isinstance(value, list):
        raise TypeError(value)
    return [(name, cost, seen) for name, cost, seen in value]


def _finite(value: object) -> float:
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _json(file: int) -> object:
    try:
        return json.loads(os.pread(file, _LARGEST, 0))
    except (OSError, ValueError, RecursionError):
        return None


def _write(file: int, data: bytes) -> None:
    """In place: a rename over somebody else's file is refused here. What a crash tears is read as nothing."""
    with suppress(OSError):  # no room
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
