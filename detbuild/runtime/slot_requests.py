"""Slot requests on this host: one file for each waiting controller, void when its process dies.

They are in a directory shared by all users, like /tmp, without locks between users: any content may change at
any time, and may be hostile. A request counts for the user who owns the file, while a process with write
permission locks it; a reader only tests the lock, so no other user can keep a dead request alive. An
unreadable or unwritable request only loses its queue position.

The controllers of one user read free slots and allocate them under a lock of that user. It only saves work:
without it no GPU is given twice either, because each container is compared with all others before it starts
(`detbuild.runtime.gpus.won`). So each wait for a lock has a timeout, and no lock is shared between users, who
could hold it forever.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import stat
import struct
import time
import weakref
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild.runtime.fair_share import PRIORITY, Memory, Use
from determined._contract.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["gpu", "cpu"]
_LARGEST: Final = 1 << 20  # bytes of a file that is read
_MOST_NAMES: Final = 20_000  # of the directory that are read
_MOST_REQUESTS: Final = 1000  # of one user that are read
_MOST_TRIALS: Final = 1000  # of one request that count, the longest waiting
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # follow no link, do not block on pipes
_NO_DIRECTORY: Final = -1
_DEAD: Final = 3600.0  # seconds that a dead request keeps its position for the next controller
_SHARED = stat.S_ISVTX | stat.S_IWOTH
_PATIENCE: Final = 10.0  # seconds for another controller to allocate and create a container
_POLL: Final = 0.02
_FLOCK: Final = "hhqqi0q"  # struct flock: type, whence, start, length, pid


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotRequest:
    """The slot request of one experiment, with its queued trials."""

    engine: str  # ID of the engine that has the slots
    kind: Kind
    user: str  # UID
    experiment: str  # "<home id>/<number>"
    slots: int  # that each trial needs
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None
    limit: int | None = None  # CPU slots of its home
    usable: tuple[str, ...] | None = None  # GPUs of its home; None for all
    asked: float = 0.0  # last poll, in seconds on the host's clock
    waiting: Mapping[str, float]  # trial -> start of its wait


class SlotRequests:
    """The request directory of a host, including this controller's own request."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = -1  # its own, locked

    @property
    def held(self) -> bool:
        """Whether this process has published a request."""
        return self._file >= 0

    def others(self, own: str = "") -> tuple[SlotRequest, ...]:
        """Return the requests of all live processes, except that of the experiment `own`."""
        name, users = _request_name(own), Counter[int]()
        found = []
        with self._opened() as directory:
            for entry in _request_names(directory):
                request = _read_request(directory, entry, users) if entry != name else None
                found += [request] if request is not None else []
        return tuple(found)

    def waiting(self, experiment: str) -> dict[str, float]:
        """Return trial -> start of its wait, from the request of an earlier controller of this user."""
        with self._opened() as directory, _existing(directory, _request_name(experiment)) as file:
            request = _parsed(file) if file is not None and _is_ours(file) else None
        return dict(request.waiting) if request is not None else {}

    def hold(self, request: SlotRequest) -> None:
        """Publish the request to all users, while this process lives.

        If the disk is full or has no locks, or another user's file has its name, it is not published: the
        experiment then waits without a queue position.
        """
        if self._file < 0 or not _plain(self._file):  # it may have been removed with its directory
            with self._opened() as directory:
                self._file = _open_locked(directory, _request_name(request.experiment))
            if self._file < 0:
                return
            weakref.finalize(self, os.close, self._file)
            self.sweep(now=request.asked)
        _write(self._file, json.dumps(asdict(request)).encode())

    def sweep(self, *, now: float) -> None:
        """Remove requests of dead processes, as far as permissions allow."""
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
        """Return the stored memory of an engine's slots."""
        with self._opened() as directory, _existing(directory, _memory_name(engine, kind)) as file:
            raw = _json(file) if file is not None else None
        return _memory(raw) if isinstance(raw, dict) else Memory()

    def remember(self, engine: str, kind: Kind, memory: Memory) -> None:
        """Store the memory for the next poll of any controller."""
        used = [(name, use.cost, use.seen) for name, use in memory.used.items()]
        data = json.dumps({"at": memory.at, "first": memory.first, "used": used}).encode()
        with self._opened() as directory:
            file = _open_shared(directory, _memory_name(engine, kind))
            if file >= 0:
                try:
                    _write(file, data)
                finally:
                    os.close(file)

    def problem(self) -> str:
        """Return why requests of other users cannot be read, or ""."""
        try:
            os.close(_directory(self.directory))
        except OSError as error:
            return f"cannot open {self.directory}: {reason_of(error)}"
        return ""

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory, so that it cannot be replaced while in use.

        If another user has put something else at its path, it counts as empty: no user can block others.
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
        path.chmod(0o1777)  # independent of the umask
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


def _open_locked(directory: int, name: str) -> int:
    """Open and lock this controller's request file, a new one if the old one is locked; -1 on failure.

    An experiment has one controller, so another process that locks its file is finished or hostile.
    No other user can open the new file before it is locked.
    """
    if directory == _NO_DIRECTORY:
        return -1
    for flags in (0, os.O_CREAT | os.O_EXCL):
        try:
            file = os.open(name, os.O_RDWR | _SAFELY | flags, 0o600, dir_fd=directory)
        except OSError:
            continue
        if _plain(file) and _is_ours(file) and lock_for_writing(file):
            os.fchmod(file, 0o644)  # independent of the umask
            return file
        os.close(file)
        with suppress(OSError):  # another user's: it stays
            os.unlink(name, dir_fd=directory)
    return -1


def _open_shared(directory: int, name: str) -> int:
    """Open a file that all users write; -1 on failure.

    The kernel refuses O_CREAT on another user's file here (fs.protected_regular), so try without it first.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT):
        try:
            file = os.open(name, flags | _SAFELY, 0o666, dir_fd=directory)
        except OSError:
            continue
        if _plain(file):
            with suppress(OSError):  # another user's file, who has set its mode
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
    """Whether it is a regular file without other hard links, which could lead writes elsewhere."""
    found = os.fstat(file)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _is_ours(file: int) -> bool:
    return os.fstat(file).st_uid == os.geteuid()


def _read_request(directory: int, name: str, users: Counter[int]) -> SlotRequest | None:
    """Return the request of a live process, unless its user has published too many."""
    with _existing(directory, name) as file:
        if file is None:
            return None
        owner = os.fstat(file).st_uid
        users[owner] += 1
        if users[owner] > _MOST_REQUESTS or not locked_for_writing(file):
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
    """Write in place, as the kernel refuses a rename over another user's file; torn content is ignored."""
    with suppress(OSError):  # disk full
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)


def lock_directory(preferred: Path = Path("/run/lock")) -> Path:
    """Return the host's lock directory, independent of user and TMPDIR.

    Debian lets all users write in /run/lock, other systems only root. The result must be the same for all
    users, so it does not depend on this user's permissions.
    """
    try:
        shared = preferred.stat().st_mode & _SHARED == _SHARED
    except OSError:
        shared = False
    return preferred if shared else Path("/tmp")  # noqa: S108  (opened without following or creating what others own)


class UserLock:
    """One lock for all controllers of a user on this host.

    If it is not available (the file belongs to another user, the disk has no locks, its holder was stopped),
    the work is done without it.
    """

    def __init__(self, directory: Path, *, patience: float = _PATIENCE) -> None:
        self.file = directory / f"detbuild-gpus-{os.geteuid()}.lock"
        self._patience = self._left = patience

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock and yield whether it is held; after a timeout, stop waiting for that holder."""
        descriptor = _open_own(self.file)
        try:
            yield descriptor >= 0 and self._acquired(descriptor)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _acquired(self, descriptor: int) -> bool:
        deadline = time.monotonic() + self._left
        while not (acquired := _locked(descriptor)) and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._left = self._patience if acquired else 0.0
        return acquired


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the disk has no locks
        return False
    return True


def _open_own(file: Path) -> int:
    """Open a private file of this user; -1 if another file has its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags, 0o600)
    except OSError:
        return -1
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return -1


def lock_for_writing(file: int) -> bool:
    """Lock an open file until it is closed; needs write permission."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except OSError:
        return False
    return True


def locked_for_writing(file: int) -> bool:
    """Whether a process with write permission holds the lock; takes no lock itself."""
    try:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_WRLCK)


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
