from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from detbuild.runtime.fair_share import Memory, Use
from detbuild.runtime.slot_requests import SlotRequest, SlotRequests

if TYPE_CHECKING:
    from collections.abc import Iterator

TICKET = SlotRequest(
    engine="e",
    kind="gpu",
    user=str(os.getuid()),
    experiment="aaaa/1",
    slots=2,
    max_slots=4,
    asked=5.0,
    waiting={"1": 3.0},
)


@pytest.fixture
def requests(tmp_path: Path) -> SlotRequests:
    return SlotRequests(tmp_path / "slots")


HOLD = """
import sys, json
from pathlib import Path
from detbuild.runtime.slot_requests import SlotRequest, SlotRequests
tickets = SlotRequests(Path(sys.argv[1]))
tickets.hold(SlotRequest(**json.loads(sys.argv[2])))
print("held", flush=True)
input()
"""


@contextmanager
def holder(requests: SlotRequests, request: SlotRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a ticket until the block ends."""
    command = [sys.executable, "-c", HOLD, str(requests.directory), json.dumps(asdict(request))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_ticket_is_seen_as_it_was_written_and_dies_with_its_holder(requests: SlotRequests) -> None:
    second = replace(TICKET, experiment="bbbb/1", max_slots=None, waiting={"2": 1.0, "3": 2.0})
    with holder(requests, TICKET) as one, holder(requests, second):
        assert requests.others() == (TICKET, second)
        assert requests.others("aaaa/1") == (second,)
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        assert requests.others() == (second,)
    assert requests.others() == ()


def test_the_next_controller_finds_how_long_the_trials_of_a_dead_one_have_waited(
    requests: SlotRequests,
) -> None:
    with holder(requests, TICKET):
        pass
    assert requests.waiting("aaaa/1") == {"1": 3.0}
    assert requests.waiting("aaaa/2") == {}


def test_a_ticket_is_taken_over_from_a_process_that_no_longer_drives_the_experiment(
    requests: SlotRequests,
) -> None:
    after = replace(TICKET, waiting={"7": 1.0})
    with holder(requests, TICKET):
        requests.hold(after)
        assert SlotRequests(requests.directory).others() == (after,)


def test_a_ticket_shrinks_to_what_it_says_last(requests: SlotRequests) -> None:
    requests.hold(replace(TICKET, waiting={str(n): 1.0 for n in range(50)}))
    requests.hold(TICKET)
    assert SlotRequests(requests.directory).others() == (TICKET,)
    requests.hold(replace(TICKET, waiting={}))
    assert SlotRequests(requests.directory).others() == (replace(TICKET, waiting={}),)


def test_what_the_dead_left_is_swept_away_after_an_hour(requests: SlotRequests) -> None:
    with holder(requests, TICKET), holder(requests, replace(TICKET, experiment="bbbb/1")):
        requests.sweep(now=9000.0)
        assert len(requests.others()) == 2
    requests.sweep(now=100.0)
    assert requests.waiting("aaaa/1")
    requests.sweep(now=9000.0)
    assert list(requests.directory.iterdir()) == []


def test_a_ticket_that_was_swept_away_under_its_holder_is_made_anew(requests: SlotRequests) -> None:
    requests.hold(TICKET)
    for file in requests.directory.iterdir():
        file.unlink()
    requests.directory.rmdir()
    requests.hold(TICKET)
    assert SlotRequests(requests.directory).others() == (TICKET,)


# other users


def test_the_directory_is_shared_as_tmp_is(requests: SlotRequests) -> None:
    previous = os.umask(0o077)
    try:
        requests.hold(TICKET)
        requests.remember("e", "gpu", Memory())
    finally:
        os.umask(previous)
    assert requests.directory.stat().st_mode & 0o7777 == 0o1777
    modes = {
        file.name.partition("-")[0]: file.stat().st_mode & 0o777 for file in requests.directory.iterdir()
    }
    assert modes == {"memory": 0o666, "wait": 0o644}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_ticket_counts_for_the_owner_of_the_file_whatever_it_says(requests: SlotRequests) -> None:
    with holder(requests, replace(TICKET, user="4321")):
        (file,) = requests.directory.iterdir()
        assert requests.others()[0].user == "4321"  # root holds it for somebody
        os.chown(file, 1234, 1234)
        assert requests.others()[0].user == "1234"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_users_share_the_memory_and_see_the_tickets_of_each_other() -> None:
    """In a directory that both reach; the memory of the one is written by the other."""
    with TemporaryDirectory(dir="/tmp") as reachable:
        Path(reachable).chmod(0o755)
        requests = SlotRequests(Path(reachable, "slots"))
        requests.remember("e", "gpu", Memory(at=1.0))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgid(1234)
                os.setuid(1234)
                theirs = SlotRequests(requests.directory)
                theirs.remember("e", "gpu", Memory(at=theirs.memory("e", "gpu").at + 1))
                theirs.hold(replace(TICKET, user="1234"))
                status = 0
                signal.pause()
            finally:
                os._exit(status)
        try:
            deadline = time.monotonic() + 10
            while not requests.others() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert requests.others() == (replace(TICKET, user="1234"),)
            assert requests.memory("e", "gpu").at == 2.0
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_link_in_the_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "slots").symlink_to(tmp_path / "elsewhere")
    requests = SlotRequests(tmp_path / "slots")
    requests.hold(TICKET)
    requests.remember("e", "gpu", Memory(at=1.0))
    assert (requests.held, requests.others(), requests.memory("e", "gpu")) == (False, (), Memory())
    assert requests.problem() == f"cannot open {tmp_path / 'slots'}: Not a directory"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("trick", ["symbolic link", "hard link", "pipe", "directory"])
def test_what_others_put_in_the_place_of_a_file_is_neither_read_nor_written(
    requests: SlotRequests, tmp_path: Path, trick: str
) -> None:
    requests.remember("e", "gpu", Memory())
    (memory,) = requests.directory.iterdir()
    memory.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for place in (memory, requests.directory / "wait-aaaa-1"):
        if trick == "symbolic link":
            place.symlink_to(victim)
        elif trick == "hard link":
            os.link(victim, place)
        elif trick == "pipe":
            os.mkfifo(place)
        else:
            place.mkdir()
    requests.remember("e", "gpu", Memory(at=1.0))
    assert requests.memory("e", "gpu") == Memory()
    assert requests.waiting("aaaa/1") == {}
    requests.hold(TICKET)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**asdict(TICKET), "slots": "many"}).encode(),
        json.dumps({**asdict(TICKET), "waiting": [1]}).encode(),
        json.dumps({**asdict(TICKET), "waiting": {"1": float("nan")}}).encode(),
        json.dumps({**asdict(TICKET), "weight": 1e999}).encode(),
        json.dumps({**asdict(TICKET), "experiment": "bbbb/2"}).encode(),
        json.dumps({"experiment": "aaaa/1"}).encode(),
    ],
    ids=range(12),
)
def test_a_damaged_ticket_or_memory_is_none(requests: SlotRequests, content: bytes) -> None:
    with holder(requests, TICKET):
        (file,) = requests.directory.iterdir()
        file.write_bytes(content)
        assert requests.others() == ()
    requests.remember("e", "gpu", Memory(at=1.0))
    (memory,) = requests.directory.glob("memory-*")
    memory.write_bytes(content)
    assert requests.memory("e", "gpu") == Memory()


def test_memory_lasts_and_is_kept_apart_by_engine_and_kind(requests: SlotRequests) -> None:
    memory = Memory(at=7.5, first="aaaa/1", used={"user 0": Use(1.5, 7.0)})
    requests.remember("e", "gpu", memory)
    assert SlotRequests(requests.directory).memory("e", "gpu") == memory
    assert requests.memory("other", "gpu") == requests.memory("e", "cpu") == Memory()
