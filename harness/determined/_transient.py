"""Detects transient errors, for which a retry may succeed: of networks, disks and time-outs."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from determined._errors import HarnessError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHAIN = 5  # causes of an error that are checked
_NUMBERS = {
    *(errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EINTR, errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.EPIPE, errno.EADDRINUSE),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
    *(errno.EREMOTEIO, errno.ETIMEDOUT),
}
# Network clients' classes, which have no common base class, by words in their names.
_NAMES = re.compile(
    r"Connect|Time(d?)_?out|Network|Socket|SSL|HTTP(S?)(Status|Response|Error)|HTTPError|URLError|Transport"
    r"|RemoteDisconnected|IncompleteRead|ChunkedEncoding|Throttl|Unavailable|RateLimit|TooManyRequests|Retry"
    r"|gaierror|herror|Rpc|DistStore|DistBackend|Proxy|ServiceRequest|BrokenPipe"
)
_WORDS = re.compile(
    r"timed? ?-?out|temporary failure|name or service not known|could not resolve|nameresolution|gaierror"
    r"|connection (refused|reset|aborted|error|broken)|connectionerror|newconnection|max retries exceeded"
    r"|network is unreachable|no route to host|broken pipe|remote end closed|unexpected eof|ssl error|ssleof"
    r"|no space left on device|disk quota exceeded|input/output error|stale file|read-only file system"
    r"|too many requests|service unavailable|bad gateway|gateway time|internal server error|http error 5"
    r"|temporarily unavailable|try again|too many open files|address already in use"
    r"|nccl error|ncclremoteerror|ncclsystemerror|uncorrectable ecc|unspecified launch failure"
    r"|busy or unavailable",
    re.IGNORECASE,
)


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is due to a network, a disk or a time-out."""
    return any(map(_is_transient, _chain(error)))


def sounds_transient(text: str) -> bool:
    """The same for the text of an error or the end of a program's output."""
    return _WORDS.search(text) is not None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HarnessError):
        return isinstance(error, StorageError)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    names = (cls.__name__ for cls in type(error).__mro__[:-3] or type(error).__mro__[:1])
    return any(map(_NAMES.search, names)) or sounds_transient(str(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
