"""What may go better another time is told from what the code does wrong."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import ssl
import urllib.error

import pytest

from determined._errors import InvalidTrialError, StorageError
from determined._transient import is_transient, sounds_transient


class EndpointConnectionError(Exception):
    """As botocore's, which derives from no common class."""


class ServiceUnavailable(Exception):  # noqa: N818  (as google.api_core's)
    pass


TRANSIENT = [
    ConnectionResetError(),
    TimeoutError(),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    ssl.SSLError("bad record"),
    urllib.error.URLError("no answer"),
    http.client.RemoteDisconnected("Remote end closed connection without response"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error", "/data/x"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
    RuntimeError("DataLoader timed out after 5 seconds"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp, unhandled system error"),
    RuntimeError("CUDA error: unspecified launch failure"),
    EndpointConnectionError("no"),
    ServiceUnavailable("503"),
    StorageError("the disk is full"),
]
LASTING = [
    KeyError("lr"),
    ValueError("shapes do not match"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x"),
    PermissionError(errno.EACCES, "Permission denied", "/data/x"),
    IsADirectoryError(errno.EISDIR, "Is a directory", "/data"),
    ModuleNotFoundError("No module named 'einops'"),
    AssertionError(),
    RuntimeError("CUDA error: device-side assert triggered"),
    json.JSONDecodeError("Expecting value", "", 0),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid start byte"),
    InvalidTrialError("exit_timeout must be a number"),
    SystemExit(3),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_networks_disks_and_time_outs(error: BaseException) -> None:
    assert is_transient(error)
    outer = RuntimeError("cannot load the data")
    outer.__cause__ = error
    assert is_transient(outer)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_everything_else(error: BaseException) -> None:
    assert not is_transient(error)


def test_what_pip_says_without_a_network() -> None:
    assert sounds_transient(
        "WARNING: Retrying after connection broken by 'NewConnectionError(...: Failed to establish'"
    )
    assert not sounds_transient("ERROR: No matching distribution found for no-such-package")
