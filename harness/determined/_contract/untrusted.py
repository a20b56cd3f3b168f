"""Opens, lists, changes and removes files that a run may have written, without leaving the directory.

A trial can replace any file that its container can write by a link, a named pipe, a socket, a directory or
an endless file, at any moment. So no path is checked first and used later: every component is opened below
the previous one, by `openat2` in one call or by a walk of descriptors. Opened files are checked by their
descriptor, and changes are made relative to that of the parent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path, PurePath
    from types import TracebackType

MOST_ENTRIES = 1_000_000  # of one directory or one walk
DEEPEST = 64  # nested directories
_BLOCK = 1 << 20
_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)  # needs no permission to read the directory
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _SAFE  # O_NONBLOCK: not blocked by a pipe or a lease
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | _SAFE
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _SAFE
_NOT_ON_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EXDEV})
_RECURSION = 32  # levels of a removal, each with a descriptor
_AT_A_TIME = 10_000  # names of a directory that are read at once for removal
_PASSES = 100_000  # of a removal, in case a process keeps adding files
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


if TYPE_CHECKING:
    RelativePath = str | PurePath


class UntrustedError(OSError):
    """A path is not the expected file; `reason` completes a sentence about `path`."""

    def __init__(self, path: str, reason: str, number: int = errno.EINVAL) -> None:
        super().__init__(number, reason)
        self.path = shown(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"

    def __reduce__(self) -> tuple[type[UntrustedError], tuple[str, str, int]]:
        return type(self), (self.path, self.reason, self.errno or errno.EINVAL)


class UntrustedMissingError(UntrustedError, FileNotFoundError):
    """The file, or a directory of its path, does not exist."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory and its type; links are not followed, and nothing is opened."""

    path: str  # relative to the listed directory, with `/`
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def kind(self) -> str:
        """The type in words, e.g. "a named pipe"."""
        return kind_of(self.status.st_mode)


class UntrustedDir:
    """A directory with untrusted content. All paths are relative to it.

    `root` itself may lie behind links. As a context manager it keeps the directory open, so that a replaced
    directory has no effect. Otherwise each call opens it again.

    Raises:
        UntrustedError: by every method; UntrustedMissingError if the path does not exist.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = os.fspath(root)
        self._fd: int | None = None

    def __enter__(self) -> UntrustedDir:  # noqa: PYI034  (`Self` is newer than Python 3.10)
        self._fd = self._opened_root()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def open(self, path: RelativePath, *, limit: int | None = None) -> BinaryIO:
        """Open a regular file for reading; reject anything else, and never block.

        Args:
            limit: bytes; larger files are rejected too.
        """
        return os.fdopen(self._opened_file(path, limit), "rb")

    def read(self, path: RelativePath, limit: int) -> bytes:
        """Read a whole regular file of at most `limit` bytes."""
        descriptor = self._opened_file(path, limit)
        try:
            return self._all(descriptor, path, limit)
        finally:
            os.close(descriptor)

    def stat(self, path: RelativePath = "") -> os.stat_result:
        """Return the status of a path; links are not followed."""
        with self._parent(path) as (parent, name), self._errors(path):
            return os.stat(name, dir_fd=parent, follow_symlinks=False) if name else os.fstat(parent)

    def exists(self, path: RelativePath = "") -> bool:
        """Whether the path exists, as a link or anything else."""
        return self._mode(path) != 0

    def is_file(self, path: RelativePath) -> bool:
        return stat.S_ISREG(self._mode(path))

    def is_directory(self, path: RelativePath = "") -> bool:
        return stat.S_ISDIR(self._mode(path))

    def scan(self, path: RelativePath = "", *, limit: int = MOST_ENTRIES) -> list[Entry]:
        """Return the entries of a directory, sorted by name; at most `limit`."""
        with self._directory(path) as descriptor, self._errors(path):
            found = _entries(descriptor, limit)
        if len(found) > limit:
            raise self._error(path, f"holds more than {limit} entries", errno.EOVERFLOW)
        return sorted(found, key=lambda entry: entry.path)

    def walk(
        self, path: RelativePath = "", *, limit: int = MOST_ENTRIES, depth: int = DEEPEST
    ) -> Iterator[Entry]:
        """Yield all entries below a directory, each directory before its content; links are not followed."""
        with self.enter(path) as top:
            left = limit
            for entry in _walked(top, depth):
                left -= 1
                if left < 0:
                    raise self._error(path, f"holds more than {limit} entries", errno.EOVERFLOW)
                yield entry

    def enter(self, path: RelativePath) -> UntrustedDir:
        """Open a subdirectory, for a `with` block."""
        return _Entered(self, self._parts(path))

    def make_directory(self, path: RelativePath, *, mode: int = 0o700, exist_ok: bool = False) -> None:
        """Make a directory and its missing parents."""
        parts = self._parts(path)
        for end in range(1, len(parts)):
            self._make(parts[:end], mode, exist_ok=True)
        self._make(parts, mode, exist_ok=exist_ok)

    def create(self, path: RelativePath, *, mode: int = 0o600) -> BinaryIO:
        """Create a new file for writing; fail if the name exists."""
        with self._parent(path) as (parent, name), self._errors(path):
            return os.fdopen(os.open(name, _CREATE, mode, dir_fd=parent), "wb")

    def append(self, path: RelativePath, *, mode: int = 0o600) -> BinaryIO:
        """Open a regular file for appending; create it if missing."""
        with self._parent(path) as (parent, name), self._errors(path):
            descriptor = os.open(name, _APPEND, mode, dir_fd=parent)
        found = os.fstat(descriptor).st_mode
        if stat.S_ISREG(found):
            return os.fdopen(descriptor, "ab")
        os.close(descriptor)
        raise self._error(path, _not_regular(found))

    def replace(
        self, path: RelativePath, content: bytes | Iterable[bytes], *, mode: int = 0o600, sync: bool = True
    ) -> None:
        """Replace a file atomically: after a crash, it has the old content or the new one.

        Args:
            content: bytes, or blocks of them.
            sync: return only when it is on disk.
        """
        with self._parent(path) as (parent, name), self._errors(path):
            temporary = f".tmp-{os.urandom(8).hex()}"
            try:
                _write_new(
                    parent, temporary, (content,) if isinstance(content, bytes) else content, (mode, sync)
                )
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            if sync:
                os.fsync(parent)

    def rename(self, path: RelativePath, to: RelativePath) -> None:
        """Rename a path without following links; replace a file of the new name."""
        with self._parent(path) as (parent, name), self._parent(to) as (target, new), self._errors(path):
            os.rename(name, new, src_dir_fd=parent, dst_dir_fd=target)

    def unlink(self, path: RelativePath, *, missing_ok: bool = False) -> None:
        """Remove a file, link, pipe or socket."""
        self._remove(path, lambda parent, name: os.unlink(name, dir_fd=parent), missing_ok=missing_ok)

    def remove_tree(self, path: RelativePath, *, missing_ok: bool = False) -> None:
        """Remove a path without following links; a directory with its content, at any depth."""
        self._remove(path, _remove_all, missing_ok=missing_ok)

    def sync(self, path: RelativePath = "") -> None:
        """Sync a file's content or a directory's names to disk."""
        if self.is_directory(path):
            with self._directory(path) as descriptor, self._errors(path):
                os.fsync(descriptor)
            return
        descriptor = self._opened_file(path)
        try:
            with self._errors(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self) -> bool:
        """Lock the directory until its `with` block ends; return False if it is in use."""
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked by another process, or a file system without locks
            return False
        return True

    def _remove(self, path: RelativePath, remove: Callable[[int, str], None], *, missing_ok: bool) -> None:
        try:
            with self._parent(path) as (parent, name), self._errors(path):
                if not name:
                    raise self._error(path, "cannot be removed by itself")
                remove(parent, name)
        except UntrustedMissingError:
            if not missing_ok:
                raise

    def _opened_root(self) -> int:
        with self._errors(""):
            return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def _anchor(self) -> Iterator[int]:
        if self._fd is not None:
            yield self._fd
            return
        descriptor = self._opened_root()
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened_file(self, path: RelativePath, limit: int | None = None) -> int:
        parts = self._parts(path)
        with self._anchor() as anchor, self._errors(path, anchor):
            descriptor = _open_below(anchor, parts, _READ)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and (limit is None or found.st_size <= limit):
            return descriptor
        os.close(descriptor)
        if stat.S_ISREG(found.st_mode):
            raise self._too_large(path, limit or 0)
        raise self._error(path, _not_regular(found.st_mode))

    @contextmanager
    def _directory(self, path: RelativePath) -> Iterator[int]:
        parts = self._parts(path)
        with self._anchor() as anchor:
            with self._errors(path, anchor, wanted="directory"):
                descriptor = _open_below(anchor, parts, _DIRECTORY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _parent(self, path: RelativePath) -> Iterator[tuple[int, str]]:
        """Yield the parent directory of a path, and its last name; "" for the root."""
        *parents, name = self._parts(path) or [""]
        with self._directory("/".join(parents)) as descriptor:
            yield descriptor, name

    def _mode(self, path: RelativePath) -> int:
        try:
            return self.stat(path).st_mode
        except UntrustedError:
            return 0  # missing, or a parent is not a directory

    def _make(self, parts: list[str], mode: int, *, exist_ok: bool) -> None:
        path = "/".join(parts)
        with self._parent(path) as (parent, name), self._errors(path):
            try:
                os.mkdir(name, mode, dir_fd=parent)
            except FileExistsError:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                if not (exist_ok and stat.S_ISDIR(found)):
                    raise self._error(path, f"exists already: {kind_of(found)}", errno.EEXIST) from None

    def _all(self, descriptor: int, path: RelativePath, limit: int) -> bytes:
        blocks, size = [], 0
        with self._errors(path):
            while block := os.read(descriptor, min(_BLOCK, limit + 1 - size)):
                blocks.append(block)
                size += len(block)
                if size > limit:
                    raise self._too_large(path, limit)
        return b"".join(blocks)

    def _parts(self, path: RelativePath) -> list[str]:
        text = os.fspath(path)
        parts = [part for part in text.split("/") if part not in {"", "."}]
        if text.startswith("/") or ".." in parts:
            raise self._error(text, "leads out of the directory")
        if "\0" in text or not _is_name(text):
            raise self._error(text.replace("\0", "\\0"), "is not a valid file name")
        return parts

    def _too_large(self, path: RelativePath, limit: int) -> UntrustedError:
        return self._error(path, f"is larger than {sized(limit)}", errno.EFBIG)

    def _error(self, path: RelativePath, reason: str, number: int = errno.EINVAL) -> UntrustedError:
        text = os.fspath(path)
        return UntrustedError(os.path.join(self.root, text) if text else self.root, reason, number)  # noqa: PTH118

    @contextmanager
    def _errors(
        self, path: RelativePath, anchor: int | None = None, *, wanted: str = "regular file"
    ) -> Iterator[None]:
        """Convert OSErrors to an UntrustedError that describes the obstacle.

        Args:
            path: the opened or changed path.
            anchor: descriptor of the root, to find the obstacle.
            wanted: the expected type.
        """
        try:
            yield
        except UntrustedError:
            raise
        except FileNotFoundError as error:
            full = self._error(path, "")
            raise UntrustedMissingError(full.path, "does not exist", errno.ENOENT) from error
        except OSError as error:
            reason = ""
            if anchor is not None and error.errno in {*_NOT_ON_THE_WAY, errno.ENXIO}:
                reason = _obstacle(anchor, self._parts(path), wanted)
            raise self._error(path, reason or _cause(error), error.errno or errno.EIO) from error


class _Entered(UntrustedDir):
    """A subdirectory, opened by the descriptor of its parent."""

    def __init__(self, above: UntrustedDir, parts: list[str]) -> None:
        super().__init__(os.path.join(above.root, *parts))  # noqa: PTH118
        self._above = above
        self._way = "/".join(parts)

    def _opened_root(self) -> int:
        with self._above._directory(self._way) as descriptor:  # noqa: SLF001
            return os.dup(descriptor)


def reason_of(error: OSError) -> str:
    """Return why an operation failed, never empty: not every OSError has a text or a number."""
    if error.strerror:
        return error.strerror
    if error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def kind_of(mode: int) -> str:
    """Return the type of a file by its mode, e.g. "a named pipe"."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "of an unknown kind")


def shown(path: str) -> str:
    """Return a printable path, for any bytes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace") if _is_name(path) else ascii(path)[1:-1]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def sized(size: int) -> str:
    """Return a size in its largest exact unit, e.g. "16 MiB"."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} bytes"


def _is_name(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _not_regular(mode: int) -> str:
    return kind_of(mode) if stat.S_ISLNK(mode) else f"is not a regular file: {kind_of(mode)}"


def _cause(error: OSError) -> str:
    if error.errno == errno.EAGAIN:
        return "is held by another process (a lease)"
    if error.errno == errno.ELOOP:
        return "is a symbolic link, or lies behind one"
    if error.errno == errno.EEXIST:
        return "exists already"
    return f"cannot be used: {reason_of(error)}"


def _obstacle(anchor: int, parts: list[str], wanted: str) -> str:
    """Describe the first component that is not a directory; "" if unknown."""
    descriptor = os.dup(anchor)
    try:
        for number, part in enumerate(parts, start=1):
            mode = os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                return _in_the_way(parts[:number], mode, wanted if number == len(parts) else "")
            above, descriptor = descriptor, os.open(part, _PATH_ONLY | _DIRECTORY, dir_fd=descriptor)
            os.close(above)
    except OSError:
        return ""  # it has changed since
    finally:
        os.close(descriptor)
    return ""


def _in_the_way(parts: list[str], mode: int, wanted: str) -> str:
    if not wanted:
        return f"lies behind {shown('/'.join(parts))}, which is {kind_of(mode)}"
    return "is a symbolic link" if stat.S_ISLNK(mode) else f"is not a {wanted}: {kind_of(mode)}"


def _open_below(anchor: int, parts: list[str], flags: int) -> int:
    """Open a path; none of its components may be a link."""
    if len(parts) == 1:
        return os.open(parts[0], flags, dir_fd=anchor)
    if not parts:
        return os.open(".", flags, dir_fd=anchor)
    openat2 = _openat2()
    if openat2 is not None:
        try:
            return openat2(anchor, "/".join(parts), flags)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENAMETOOLONG}:  # a concurrent rename; a very long path
                raise
    return _open_by_walk(anchor, parts, flags)


def _open_by_walk(anchor: int, parts: list[str], flags: int) -> int:
    *parents, name = parts
    descriptor = os.dup(anchor)
    try:
        for parent in parents:
            above, descriptor = descriptor, os.open(parent, _PATH_ONLY | _DIRECTORY, dir_fd=descriptor)
            os.close(above)
        return os.open(name, flags, dir_fd=descriptor)
    finally:
        os.close(descriptor)


@lru_cache(1)
def _openat2() -> Callable[[int, str, int], int] | None:
    """Return the system call, if the kernel has it and seccomp allows it."""
    import ctypes

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    number = 437  # on every architecture
    resolve = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    try:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    syscall.restype = ctypes.c_long

    def openat2(directory: int, path: str, flags: int) -> int:
        how = OpenHow(flags, 0, resolve)
        found = syscall(
            ctypes.c_long(number),
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found < 0:
            fault = ctypes.get_errno()
            raise OSError(fault, os.strerror(fault), path)
        return int(found)

    try:
        probe = os.open("/", _DIRECTORY)
        try:
            os.close(openat2(probe, ".", _DIRECTORY))
        finally:
            os.close(probe)
    except OSError:
        return None  # ENOSYS, or EPERM by seccomp
    return openat2


def _entries(descriptor: int, limit: int) -> list[Entry]:
    """Return at most one entry more than the limit; skip entries that vanish."""
    found: list[Entry] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append(Entry(entry.name, entry.stat(follow_symlinks=False)))
            if len(found) > limit:
                break
    return found


def _walked(top: UntrustedDir, depth: int) -> Iterator[Entry]:
    """Open each directory from the top by its path, so that deep trees need few descriptors."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for entry in top.scan(directory):
            path = f"{directory}/{entry.path}" if directory else entry.path
            yield Entry(path, entry.status)
            if entry.is_directory:
                if path.count("/") + 1 >= depth:
                    raise top._error(path, f"lies {depth} directories deep", errno.EOVERFLOW)  # noqa: SLF001
                waiting.append(path)


def _write_new(parent: int, name: str, blocks: Iterable[bytes], how: tuple[int, bool]) -> None:
    mode, sync = how
    with os.fdopen(os.open(name, _CREATE, mode, dir_fd=parent), "wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _remove_all(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except OSError:
        if not _is_directory(parent, name):
            raise
        _remove_directory(parent, name)


def _remove_directory(parent: int, name: str) -> None:
    """Empty the directory in passes; a deep subdirectory is moved to the top for the next pass."""
    top = _opened_to_empty(parent, name)
    try:
        for _ in range(_PASSES):
            _empty(top, top, _RECURSION)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
        raise OSError(errno.ENOTEMPTY, "another process keeps adding files")
    finally:
        os.close(top)


def _empty(top: int, directory: int, levels: int) -> None:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in islice(entries, _AT_A_TIME)]
    for name in names:
        with suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=directory)
            except OSError:
                if not _is_directory(directory, name):
                    raise
                _remove_below(top, directory, name, levels)


def _remove_below(top: int, directory: int, name: str, levels: int) -> None:
    below = _opened_to_empty(directory, name)
    try:
        if levels:
            _empty(top, below, levels - 1)
    finally:
        os.close(below)
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        if directory != top:
            os.rename(name, f".tmp-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)


def _opened_to_empty(parent: int, name: str) -> int:
    """Open a directory; first restore its owner's permissions, which a trial may have removed."""
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, _PATH_ONLY | _DIRECTORY, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # noqa: PTH101
        finally:
            os.close(handle)
        return os.open(name, _DIRECTORY, dir_fd=parent)
    with suppress(OSError):  # of another owner: removal will fail
        if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
