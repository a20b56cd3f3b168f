"""Two users of one host, one of whom means harm: each test makes the harm as a user without rights."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from detbuild.runtime.slot_queue import SlotQueue
from detbuild.runtime.slot_requests import SlotRequest, SlotRequests, lock_for_writing
from tests.unit.runtime.test_slot_queue import ONE, OTHER, Desk, container, host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")

ANNA, MALLORY = 4321, 4322
THEIRS = replace(ONE, experiment="eeee/1", user=str(MALLORY))


@pytest.fixture
def directory() -> Iterator[Path]:
    """Shared as /run/lock is, and reachable by all users."""
    with TemporaryDirectory(dir="/tmp") as reachable:
        Path(reachable).chmod(0o1777)
        yield Path(reachable)


@contextmanager
def user(uid: int, work: Callable[[], object]) -> Iterator[int]:
    """A process of a user that has done the work and stays until the block ends; gives its id."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            kept = work()  # open files, with their locks
            os.write(writer, b"done")
            signal.pause()
            del kept
        except BaseException as error:  # noqa: BLE001  (a forked child reports and never returns)
            os.write(writer, repr(error).encode())
        finally:
            os._exit(1)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as said:
            first = said.read(4)
            assert first == b"done", first + said.read()
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def asks(directory: Path, request: SlotRequest = OTHER) -> Desk:
    """The controller of the honest user, which is root here."""
    return Desk(directory, replace(request, user="0"))


def shows(directory: Path, *requests: SlotRequest) -> Callable[[], object]:
    """Show tickets as a controller does, and keep them."""

    def show() -> list[SlotRequests]:
        held = []
        for request in requests:
            held.append(SlotRequests(directory / "detbuild-slots"))
            held[-1].hold(request)
        return held

    return show


def locks_everything(directory: Path) -> Callable[[], object]:
    """Hold every kind of lock that this user can get on every file and directory."""

    kinds = (
        (fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB),
        (fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB),
        (fcntl.lockf, fcntl.LOCK_SH | fcntl.LOCK_NB),
    )

    def lock() -> list[int]:
        held = []
        for path in (directory, *directory.rglob("*")):
            for flags in (os.O_RDWR, os.O_RDONLY):
                with suppress(OSError):
                    held.append(os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
                    for call, kind in kinds:
                        with suppress(OSError):
                            call(held[-1], kind)
        return held

    return lock


def test_locks_that_another_user_holds_forever_stop_no_trial(directory: Path) -> None:
    desk = asks(directory)
    busy = host(1, container(replace(ONE, experiment="cccc/3", user="77"), 1, "0"))
    desk(1, busy, 0.0)
    with user(MALLORY, locks_everything(directory)):
        with desk.queue.lock() as held:
            assert held
        assert desk(1, host(1), 2.0) == "0"
        assert desk(2, busy, 3.0) == "the only GPU is in use"
        fresh = asks(directory, replace(OTHER, experiment="bbbb/9"))
        assert fresh(1, busy, 4.0).startswith("the only GPU is in use")
        names = {request.experiment for request in SlotRequests(directory / "detbuild-slots").others()}
        assert names == {"bbbb/2", "bbbb/9"}


def test_a_dead_request_does_not_look_alive_because_another_user_locks_its_file(directory: Path) -> None:
    with user(ANNA, shows(directory, replace(ONE, waiting={"1": 0.0}))):
        assert len(SlotRequests(directory / "detbuild-slots").others()) == 1
    with user(MALLORY, locks_everything(directory)):
        assert SlotRequests(directory / "detbuild-slots").others() == ()


def test_a_request_that_never_uses_its_turn_is_passed_after_a_while(directory: Path) -> None:
    """Under any number of names; and it is heard again once its user starts something."""
    greedy = [
        replace(THEIRS, experiment=f"eeee/{n}", slots=2, priority=1, asked=float(n), waiting={"1": -1e9})
        for n in range(0, 60, 10)
    ]
    with user(MALLORY, shows(directory, *greedy)):
        desk, said = asks(directory), []
        for now in range(0, 44, 2):
            said.append(desk(1, host(2), float(now)))
            if said[-1].isdigit():
                break
        assert "next after" in said[0]
        assert said[-1] == "0"
        assert len(said) <= 10  # 15 s for all of its names together
        assert desk(2, host(2, container(OTHER, 1, "0")), 40.0) == "1"


def test_a_user_who_uses_every_turn_keeps_it(directory: Path) -> None:
    theirs = replace(THEIRS, priority=1, waiting={str(trial): 0.0 for trial in range(100)})
    desk = asks(directory)
    for now in range(0, 60, 5):
        with user(MALLORY, shows(directory, replace(theirs, asked=float(now)))):
            running = container(theirs, now, "0")
            assert "next after" in desk(1, host(2, running), float(now))


def hostile_files(slots: Path) -> Callable[[], object]:
    def make() -> None:
        slots.mkdir(exist_ok=True)
        for name in ("wait-bbbb-2", "wait-x-1", "memory-gpu-0"):
            (slots / name).unlink(missing_ok=True)
        (slots / "wait-bbbb-2").symlink_to("/etc/passwd")
        os.mkfifo(slots / "wait-x-1")
        os.link(slots / "wait-x-1", slots / "wait-x-2")
        with (slots / "wait-x-3").open("wb") as file:
            file.truncate(1 << 40)
        (slots / "wait-x-4").write_text("[" * 1_000_000)
        (slots / "wait-x-5").write_text("9" * 1_000_000)
        (slots / "wait-x-6").mkdir()
        (slots / "wait-x-7").symlink_to("wait-x-7")
        for number in range(300):
            (slots / f"wait-y-{number}").write_text("{}")

    return make


def test_hostile_files_among_the_requests_stop_no_trial(directory: Path) -> None:
    slots = directory / "detbuild-slots"
    with user(MALLORY, hostile_files(slots)):
        desk = asks(directory)
        busy = host(1, container(replace(ONE, experiment="cccc/3", user="77"), 1, "0"))
        assert desk(1, busy, 0.0) == "the only GPU is in use"
        assert desk(1, host(1), 2.0) == "0"


@pytest.mark.parametrize("trick", ["file", "link", "closed", "read-only", "dangling"])
def test_whatever_another_user_puts_in_the_place_of_the_requests_stops_no_trial(
    directory: Path, trick: str
) -> None:
    slots = directory / "detbuild-slots"

    def put() -> None:
        if trick == "file":
            slots.write_text("mine")
        elif trick == "link":
            slots.symlink_to("/etc")
        elif trick == "dangling":
            slots.symlink_to("nowhere")
        else:
            slots.mkdir()
            slots.chmod(0 if trick == "closed" else 0o555)

    answers: list[str] = []

    def honest() -> None:
        queue = SlotQueue(directory)
        for trial, inventory in ((1, host(1)), (2, host(1, container(OTHER, 1, "0")))):
            with queue.lock():
                given, why = queue.ask(replace(OTHER, user=str(ANNA)), trial, lambda s=inventory: s, now=0.0)
            answers.append(why or " ".join(gpu.id for gpu in given))
        assert answers == ["0", "the only GPU is in use"], answers
        assert bool(queue.requests.problem()) == (trick != "read-only")

    with user(MALLORY, put), user(ANNA, honest):
        pass
    assert not any(file.name.startswith(("wait-", "memory-")) for file in Path("/etc").iterdir())


def test_more_requests_than_a_user_needs_are_not_read(directory: Path) -> None:
    def flood() -> list[int]:
        slots, held = directory / "detbuild-slots", []
        slots.mkdir()
        slots.chmod(0o1777)
        for number in range(1500):
            request = replace(THEIRS, experiment=f"eeee/{number}", waiting={"1": 0.0})
            held.append(os.open(slots / f"wait-eeee-{number}", os.O_RDWR | os.O_CREAT, 0o644))
            os.write(held[-1], json.dumps(asdict(request)).encode())
            lock_for_writing(held[-1])
        return held

    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with user(MALLORY, flood), user(ANNA, shows(directory, replace(OTHER, waiting={"1": 0.0}))):
        found = SlotRequests(directory / "detbuild-slots").others()
        assert sum(request.user == str(MALLORY) for request in found) == 1000
        assert sum(request.user == str(ANNA) for request in found) == 1


def test_a_request_counts_for_its_user_and_for_a_bounded_number_of_trials(directory: Path) -> None:
    many = replace(THEIRS, user="0", waiting={str(trial): float(trial) for trial in range(30_000)})
    with user(MALLORY, shows(directory, many)):
        (found,) = SlotRequests(directory / "detbuild-slots").others()
        assert (found.user, len(found.waiting), max(found.waiting.values())) == (str(MALLORY), 1000, 999.0)
