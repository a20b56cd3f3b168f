from __future__ import annotations

import threading

from detbuild.events import Event, Working, heartbeat


def test_a_block_that_takes_long_is_named_until_it_ends() -> None:
    told: list[Event] = []
    twice = threading.Event()

    def emit(event: Event) -> None:
        told.append(event)
        if len(told) == 2:
            twice.set()

    with heartbeat(emit, lambda: f"step {len(told)}", first=0.001, again=0.001):
        assert twice.wait(60)
    assert told[:2] == [Working("step 0"), Working("step 1")]


def test_a_short_block_is_silent() -> None:
    told: list[Event] = []
    with heartbeat(told.append, lambda: "step", first=3600):
        pass
    assert told == []


def test_a_reader_that_has_gone_ends_nothing() -> None:
    tried = threading.Event()

    def emit(_: Event) -> None:
        tried.set()
        raise BrokenPipeError

    with heartbeat(emit, lambda: "step", first=0.001, again=0.001):
        assert tried.wait(60)
