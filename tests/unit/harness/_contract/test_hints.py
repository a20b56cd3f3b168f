"""Errors whose cause is known say what to do, in a container and on this host."""

from __future__ import annotations

import builtins
import errno
import http.client
import json
import os
import socket
import ssl
import subprocess
import urllib.error
from itertools import pairwise
from pathlib import Path

import pytest

from determined._contract.errors import InvalidTrialError, StorageError
from determined._contract.hints import Where, hint_for, hint_of, is_transient, sounds_transient

BOX = Where(container=True, directory="/run/determined/workdir", user="1000:1000")
HERE = Where(container=False, directory="/home/me/model", user="1000:1000")


def raised(*chain: BaseException) -> BaseException:
    """The first one, from the second, and so on."""
    for outer, inner in pairwise(chain):
        outer.__cause__ = inner
    return chain[0]


def missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


RELAYED = (
    "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    '  File "/run/determined/workdir/data.py", line 3, in __getitem__\n    open(x)\n'
    "FileNotFoundError: [Errno 2] No such file or directory: '/data/train/1.png'\n"
)
SHARED = "libGL.so.1: cannot open shared object file: No such file or directory"
IN_CONTAINER = [
    (
        missing("/home/me/data/train.csv"),
        "mount `/home/me/data/train.csv` or a directory above it with bind_mounts",
    ),
    (missing("/home/me/data/train.csv"), "it runs in /run/determined/workdir"),
    (missing("../data/train.csv"), "the container has no other directory above its context"),
    (missing("data/train.csv"), "put `data/train.csv` into the context directory (check .detignore)"),
    (missing("data/train.csv"), "the working directory of the container is /run/determined/workdir"),
    (missing("~/data/train.csv"), "write the full path instead of `~`"),
    (FileNotFoundError(RELAYED), "mount `/data/train/1.png`"),
    (raised(RuntimeError("cannot read the data"), missing("/data/x")), "mount `/data/x`"),
    (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "make `/data/x` accessible to 1000:1000"),
    (PermissionError(errno.EACCES, "Permission denied"), "make the file accessible to 1000:1000"),
    (OSError(errno.EROFS, "Read-only file system", "/data/x"), "mount `/data/x` with `read_only: false`"),
    (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "free space on the disk of `/tmp/x`"),
    (OSError(errno.ENOSPC, "No space left on device"), "free space on the disk"),
    (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/torch_1"), "raise resources.shm_size"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "), "raise resources.shm_size"),
    (
        RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
        "raise resources.shm",
    ),
    (socket.gaierror(-2, "Name or service not known"), "check the name and the container's network"),
    (ConnectionRefusedError(111, "Connection refused to localhost:5432"), "write the host's address instead"),
    (ImportError(SHARED), "replace opencv-python by opencv-python-headless in requirements.txt"),
    (ImportError(SHARED), "use an image with the Debian package libgl1 (environment.image)"),
    (OSError("libgomp.so.1: cannot open shared object file: No such file"), "the Debian package libgomp1"),
    (ImportError("libcuda.so.1: cannot open shared object file"), "set resources.slots_per_trial"),
    (ImportError("libodd.so.3: cannot open shared object file"), "the system library libodd.so.3"),
    (Exception("unsupported locale setting"), "set LC_ALL=C.UTF-8, a locale of every image"),
    (UnicodeDecodeError("ascii", b"\xc3", 0, 1, "ordinal not in range(128)"), "name the encoding"),
    (KeyError("getpwuid(): uid not found: 1000"), "read $USER or $HOME instead: uid 1000"),
    (OSError(errno.EMFILE, "Too many open files"), "set_sharing_strategy"),
    (RuntimeError("can't start new thread"), "use fewer threads"),
    (AssertionError("Torch not compiled with CUDA enabled"), "set resources.slots_per_trial"),
    (MemoryError(), "lower the batch size"),
]


@pytest.mark.parametrize(("error", "hint"), IN_CONTAINER, ids=lambda one: str(one)[:40])
def test_in_a_container(error: BaseException, hint: str) -> None:
    assert hint in hint_of(error, BOX)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (missing("/home/me/data/train.csv"), ""),
        (missing("data/train.csv"), "check the path: it is relative to /home/me/model"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "make `/x` accessible to user 1000:1000"),
        (
            RuntimeError("insufficient shared memory"),
            "use fewer data loader workers: /dev/shm of this host is full",
        ),
        (socket.gaierror(-2, "Name or service not known"), "check the name and the network of this host"),
        (ConnectionRefusedError(111, "Connection refused to localhost:5432"), ""),
        (
            OSError("libgomp.so.1: cannot open shared object file: No such file"),
            "install the Debian package libgomp1",
        ),
    ],
    ids=lambda one: str(one)[:40],
)
def test_on_this_host_nothing_is_said_of_containers(error: BaseException, hint: str) -> None:
    found = hint_of(error, HERE)
    assert found == hint
    assert "container" not in found


def test_a_program_that_is_not_there_is_no_file_to_mount() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["no-such-program"], check=True)
    assert (
        hint_of(caught.value, BOX)
        == "use an image that has the program `no-such-program` (environment.image)"
    )
    assert hint_of(caught.value, HERE) == "install the program `no-such-program`"


def test_what_python_says_of_a_real_file(tmp_path: Path) -> None:
    for act in (builtins.open, os.listdir, os.stat, Path.read_text):
        with pytest.raises(FileNotFoundError) as caught:
            act(tmp_path / "no" / "file")  # type: ignore[operator]
        assert hint_of(caught.value, BOX).startswith(f"mount `{tmp_path}/no/file`")


@pytest.mark.parametrize("text", ["KeyError: 'lr'", "ValueError: shapes (3,) and (4,) do not match", ""])
def test_any_other_error_has_none(text: str) -> None:
    assert hint_for(text, BOX) == hint_for(text, HERE) == ""


def test_a_hint_of_a_huge_text_is_found_at_once() -> None:
    assert hint_for("x: 'y' " * 1_000_000 + "Permission denied: '/x'", BOX).startswith("make `/x`")


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
