"""Whether an experiment has a controller is told by the process that was started, and not by time."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from detbuild.controller import requests
from detbuild.controller.lease import Holder, holder, lease, name_holder
from detbuild.controller.loop import start_detached
from detbuild.controller.requests import RequestWatcher, resume_one
from detbuild.errors import EngineError
from detbuild.store import journal
from tests.faults.training import rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.events import Event
    from tests.faults.training import Rig


@pytest.fixture
def tried(tmp_path: Path) -> Rig:
    """An experiment with work left, and without a controller."""
    found = rig(tmp_path)
    found.controller().step()
    return found


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Controllers are stopped before Python has begun in them, as on a host that has no time for them."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nkill -STOP $$\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    pids: list[int] = []
    monkeypatch.setattr(
        "detbuild.controller.loop.name_holder", lambda held, pid: (pids.append(pid), name_holder(held, pid))
    )

    yield tmp_path
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_controller_that_has_not_begun_to_run_is_there(tried: Rig, slow: Path) -> None:
    said: list[Event] = []
    follower = RequestWatcher(tried.folder, said.append)
    with lease(tried.folder.lock_file) as held:
        start_detached(tried.folder, held)
    for _ in range(100):
        follower.poll()
    assert said == []
    found = holder(tried.folder.lock_file)
    assert found is not None
    assert found.host == socket.gethostname()
    assert resume_one(tried.folder) is False


def test_one_that_is_dead_is_replaced_at_the_next_look(tried: Rig, slow: Path) -> None:
    said: list[Event] = []
    follower = RequestWatcher(tried.folder, said.append)
    assert resume_one(tried.folder)
    first = holder(tried.folder.lock_file)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    while holder(tried.folder.lock_file) == first:
        signal.sigtimedwait((), 0.01)
    follower.poll()
    assert [str(getattr(event, "message", event)) for event in said] == [
        "the controller of experiment 1 has died; starting a new one"
    ]
    assert holder(tried.folder.lock_file) not in {first, None, Holder(0, "")}


def test_what_is_asked_of_an_experiment_at_rest_is_no_loss_of_a_controller(
    tried: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried.folder.request("pause")
    tried.run()
    started: list[int] = []
    monkeypatch.setattr(requests, "start_detached", lambda folder, _: started.append(folder.id))
    said: list[Event] = []
    follower = RequestWatcher(tried.folder, said.append)
    follower.poll()
    assert started == []
    tried.folder.request("activate")
    follower.poll()
    assert (started, said) == ([1], [])


def test_one_that_does_not_stay_alive_is_given_up(tried: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_PAUSE", 0.0)
    monkeypatch.setattr(requests, "start_detached", lambda *_: None)
    said: list[Event] = []
    follower = RequestWatcher(tried.folder, said.append)
    for _ in range(3):
        follower.poll()
    with pytest.raises(EngineError, match="keeps dying"):
        follower.poll()
    assert len(said) == 3


def test_an_experiment_that_ends_before_the_look_needs_none(
    tried: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "start_detached", lambda *_: pytest.fail("nothing is left to do"))
    tried.folder.record(journal.ExperimentFinished(state="COMPLETED"))
    RequestWatcher(tried.folder, lambda event: None).poll()
