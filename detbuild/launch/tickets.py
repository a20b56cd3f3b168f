"""Requests for slots on this host: one ticket file for each controller that waits, dead when its process is.

They lie in a directory that all users share, as /tmp is shared, and no lock keeps users apart: whatever is in
there may be changed at any time, and may have been put there to trick us. A ticket counts for the user who
owns the file, while a process that can write it locks it; a reader only asks whether it is locked, so no
other user can make a dead ticket look alive. What cannot be read or written only costs a place in the line.
Nothing here decides whether a GPU is free: that is what containers say.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from detbuild.launch.hostlock import lock_for_writing, locked_for_writing
from detbuild.launch.share import PRIORITY, Memory, Use
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Kind = Literal["gpu", "cpu"]
_LARGEST: Final = 1 << 20  # bytes of a file that is read
_MOST_NAMES: Final = 20_000  # of the directory that are looked at
_MOST_TICKETS: Final = 1000  # of one user that are read
_MOST_TRIALS: Final = 1000  # of one ticket that are counted, those that have waited longest
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, no pipe waited for
_NO_DIRECTORY: Final = -1
_DEAD: Final = 3600.0  # seconds for which a ticket without a holder keeps its place for the next one


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotRequest:
    """The trials of one experiment that wait for slots."""

    engine: str  # id of the engine whose slots they are
    kind: Kind
    user: str  # uid
    experiment: str  # "<home id>/<number>"
    slots: int  # that each trial needs
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None
    limit: int | None = None  # CPU slots that its home may use
    usable: tuple[str, ...] | None = None  # GPUs that its home may use; None for all
    asked: float = 0.0  # when its process last looked, in seconds on the host's clock
    waiting: Mapping[str, float]  # trial -> since when


class SlotRequests:
    """The directory of one host; this controller's own ticket among them, once it has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = -1  # that is held

    @property
    def held(self) -> bool:
        """Whether this process shows a ticket."""
        return self._file >= 0

    def others(self, own: str = "") -> tuple[SlotRequest, ...]:
        """All tickets of living processes, but for that of the experiment `own`."""
        name, users = _request_name(own), Counter[int]()
        found = []
        with self._opened() as directory:
            for entry in _request_names(directory):
                request = _read_request(directory, entry, users) if entry != name else None
                found += [request] if request is not None else []
        return tuple(found)

    def waiting(self, experiment: str) -> dict[str, float]:
        """What a ticket of this user says that an earlier controller left: trial -> since when."""
        with self._opened() as directory, _existing(directory, _request_name(experiment)) as file:
            request = _parsed(file) if file is not None and _is_ours(file) else None
        return dict(request.waiting) if request is not None else {}

    def hold(self, request: SlotRequest) -> None:
        """Show the ticket to all users, for as long as this process lives.

        It is not shown where the disk is full or has no locks, or where another user's file has its name: the
        experiment then waits without a place in the line.
        """
        if self._file < 0 or not _plain(self._file):  # it may have been swept away with its directory
            with self._opened() as directory:
                self._file = _taken(directory, _request_name(request.experiment))
            if self._file < 0:
                return
            weakref.finalize(self, os.close, self._file)
            self.sweep(now=request.asked)
        _write(self._file, json.dumps(asdict(request)).encode())

    def sweep(self, *, now: float) -> None:
        """Remove what dead processes left, as far as it is ours to remove."""
        with self._opened() as directory:
            for name in _request_names(directory):
                with _existing(directory, name) as file:
                    if file is None or locked_for_writing(file):
                        continue
                    request = _parsed(file)
                    if request is None or not 0 <= now - request.asked <= _DEAD:
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

    def trouble(self) -> str:
        """Why requests of other users cannot be seen; "" when they can."""
        try:
            os.close(_directory(self.directory))
        except OSError as error:
            return f"cannot open {self.directory}: {reason_of(error)}"
        return ""

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory itself, so that no other can be put in its place meanwhile.

        Where another user has put something in its place, an empty one stands for it: no user can hold the
        others up.
        """
        try:
            descriptor = _directory(self.directory)
        except OSError:
            yield _NO_DIRECTORY
            return
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


def _request_names(directory: int) -> list[str]:
    if directory == _NO_DIRECTORY:
        return []
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in islice(entries, _MOST_NAMES)]
    except OSError:
        return []
    return sorted(name for name in names if name.startswith("wait-"))


def _request_name(experiment: str) -> str:
    return f"wait-{experiment.replace('/', '-')}"


def _memory_name(engine: str, kind: Kind) -> str:
    return f"memory-{kind}-{hashlib.sha256(engine.encode()).hexdigest()[:16]}"


def _taken(directory: int, name: str) -> int:
    """Open and lock our own ticket, a new one if the old one is locked; -1 when that cannot be.

    An experiment has one controller, so another process that locks its ticket has done its part, or means
    harm. No other user can open the new file before it is locked.
    """
    if directory == _NO_DIRECTORY:
        return -1
    for flags in (0, os.O_CREAT | os.O_EXCL):
        try:
            file = os.open(name, os.O_RDWR | _SAFELY | flags, 0o600, dir_fd=directory)
        except OSError:
            continue
        if _plain(file) and _is_ours(file) and lock_for_writing(file):
            os.fchmod(file, 0o644)  # whatever the umask is
            return file
        os.close(file)
        with suppress(OSError):  # another user's: it stays
            os.unlink(name, dir_fd=directory)
    return -1


def _open_shared(directory: int, name: str) -> int:
    """Open a file that all users write; -1 when that cannot be.

    The kernel refuses O_CREAT on another user's file here (fs.protected_regular): it is tried without first.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):
        try:
            file = os.open(name, flags | _SAFELY, 0o666, dir_fd=directory)
        except OSError:
            continue
        if _plain(file):
            with suppress(OSError):  # another user's, who has seen to it
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


def _is_ours(file: int) -> bool:
    return os.fstat(file).st_uid == os.geteuid()


def _read_request(directory: int, name: str, users: Counter[int]) -> SlotRequest | None:
    """A ticket of a living process, if its user has not shown too many of them."""
    with _existing(directory, name) as file:
        if file is None:
            return None
        owner = os.fstat(file).st_uid
        users[owner] += 1
        if users[owner] > _MOST_TICKETS or not locked_for_writing(file):
            return None
        request = _parsed(file)
        if request is None or _request_name(request.experiment) != name:
            return None
        return request if owner == 0 else replace(request, user=str(owner))


def _parsed(file: int) -> SlotRequest | None:
    raw = _json(file)
    if not isinstance(raw, dict) or raw.keys() != {each.name for each in fields(SlotRequest)}:
        return None
    try:
        return SlotRequest(
            engine=str(raw["engine"]),
            kind="gpu" if raw["kind"] == "gpu" else "cpu",
            user=str(raw["user"]),
            experiment=str(raw["experiment"]),
            slots=max(1, int(raw["slots"])),
            priority=int(raw["priority"]),
            weight=_finite(raw["weight"]),
            max_slots=None if raw["max_slots"] is None else int(raw["max_slots"]),
            limit=None if raw["limit"] is None else max(1, int(raw["limit"])),
            usable=None if raw["usable"] is None else tuple(map(str, raw["usable"])),
            asked=_finite(raw["asked"]),
            waiting=_waiting(raw["waiting"]),
        )
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None


def _waiting(raw: Mapping[str, object]) -> dict[str, float]:
    since = {str(trial): _finite(moment) for trial, moment in raw.items()}
    return dict(sorted(since.items(), key=itemgetter(1))[:_MOST_TRIALS])


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
    """In place: a rename over another user's file is refused here. What a crash tears is read as nothing."""
    with suppress(OSError):  # no room
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
