from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.controller.deletion import finish_deletions
from detbuild.errors import EngineError
from detbuild.store.annotations import Attributes
from detbuild.store.experiment_dir import Header
from detbuild.store.files import file_errors, sweep_temporaries, typed, write_output, write_synced
from detbuild.store.home import Home
from detbuild.store.journal import Fact, Request

if TYPE_CHECKING:
    from pathlib import Path


_KILLED = """
import os, signal, sys
from pathlib import Path
from detbuild.store import files

def killed(_):
    files.os.fsync = lambda _: None
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))

files.os.fsync = killed
files.write_synced(Path(sys.argv[1]), b"half")
"""


def _old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_what_a_killed_writer_has_left_is_removed_from_the_home(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    for directory in home.directories:
        directory.mkdir(exist_ok=True)
        ended = subprocess.run([sys.executable, "-c", _KILLED, directory / "x.json", "SIGKILL"], check=False)
        assert ended.returncode == -signal.SIGKILL
    left = list(home.path.rglob("*.tmp"))
    assert len(left) == len(home.directories)
    assert finish_deletions(home) == ()
    assert list(home.path.rglob("*.tmp")) == left  # they are new: their writers may be about to lock them
    for path in left:
        _old(path)
    assert finish_deletions(home) == ()
    assert list(home.path.rglob("*.tmp")) == []


def test_a_temporary_in_use_and_the_files_of_others_stay(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, tmp_path / "x.json", "SIGSTOP"]
    with subprocess.Popen(command) as writer:
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
        (temporary,) = tmp_path.iterdir()
        for name in (".x.tmp", "x.1.tmp", ".x.1.tmp.txt"):
            (tmp_path / name).write_text("")
        (tmp_path / ".link.1.tmp").symlink_to(tmp_path / ".x.tmp")
        before = {*tmp_path.iterdir()}
        for path in before:
            _old(path)
        sweep_temporaries(tmp_path)
        assert {*tmp_path.iterdir()} == before
        writer.send_signal(signal.SIGCONT)
        assert writer.wait() == 0
    assert not temporary.exists()
    assert (tmp_path / "x.json").read_bytes() == b"half"


def test_a_writer_that_lives_is_not_disturbed(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"1")
    sweep_temporaries(tmp_path)
    sweep_temporaries(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_without_a_text_has_a_cause(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot write .*: OSError"), file_errors(tmp_path):
        raise OSError


def test_an_output_into_a_pipe_leaves_the_pipe_what_it_is(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"page")
    reader.join()
    assert (found, pipe.is_fifo()) == ([b"page"], True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_an_output_into_a_device_leaves_the_device_what_it_is(tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    write_output(device, b"page")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [device]


def test_an_output_under_a_link_is_written_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"old")
    (tmp_path / "link").symlink_to("page")
    write_output(tmp_path / "link", b"new")
    assert ((tmp_path / "page").read_bytes(), (tmp_path / "link").is_symlink()) == (b"new", True)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(EngineError, match="loop"):
        write_output(tmp_path / "loop" / "page", b"")
    with pytest.raises(EngineError, match="cannot write"):
        write_output(tmp_path, b"")


READ = (Header, Attributes, Request, *(fact for fact in get_args(Fact) if fields(fact)))
HEADER = {"id": 1, "name": "a", "context_name": "c", "created": 1.5}


@dataclass(frozen=True)
class Sample:
    count: int
    ratio: float = 0.0
    name: str | None = None
    names: tuple[str, ...] = ()
    maps: tuple[Mapping[str, object], ...] = ()
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    anything: object = None


def test_values_are_taken_with_lists_as_tuples_and_unknown_keys_ignored() -> None:
    raw = {
        "count": 1,
        "ratio": 2,
        "name": None,
        "names": ["a"],
        "maps": [{"a": [1]}],
        "lists": {"a": ["b"]},
        "anything": 10**30,
        "later": 1,
    }
    assert (typed(Sample, raw).ratio, typed(Sample, raw).anything) == (2, 10**30)
    assert typed(Sample, raw) == Sample(1, 2, None, ("a",), ({"a": [1]},), {"a": ["b"]}, 10**30)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ([], "is not a JSON object"),
        ({}, "has no `count`"),
        ({"count": True}, "has a `count` that is true or false"),
        ({"count": 1.0}, "has a `count` that is a number"),
        ({"count": 1 << 63}, "has a `count` that is out of range"),
        ({"count": 1, "ratio": float("nan")}, "has a `ratio` that is out of range"),
        ({"count": 1, "ratio": float("inf")}, "has a `ratio` that is out of range"),
        ({"count": 1, "name": 3}, "has a `name` that is a number"),
        ({"count": 1, "names": "abc"}, "has a `names` that is text"),
        ({"count": 1, "names": [None]}, "has a `names` that is null"),
        ({"count": 1, "maps": [[]]}, "has a `maps` that is a list"),
        ({"count": 1, "lists": {"a": [1]}}, "has a `lists` that is a number"),
        ({"count": 1, "lists": {"a": {}}}, "has a `lists` that is a map"),
    ],
)
def test_what_is_of_another_type_is_named(raw: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        typed(Sample, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(cls=st.sampled_from(READ), data=st.data())
def test_whatever_a_field_holds_gives_a_value_or_an_error_in_words(cls: type, data: st.DataObject) -> None:
    names = [each.name for each in fields(cls)]
    raw = data.draw(st.dictionaries(st.sampled_from(names), JSON))
    with suppress(ValueError):
        _check(typed(cls, raw), raw)


def _check(found: object, raw: Mapping[str, object]) -> None:
    json.dumps(asdict(found))
    for name, value in raw.items():
        if isinstance(value, (str, bool)):
            assert getattr(found, name) == value


def test_a_header_is_read_back() -> None:
    header = typed(Header, HEADER)
    assert typed(Header, json.loads(json.dumps(asdict(header)))) == header
