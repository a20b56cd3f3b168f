from __future__ import annotations

from pathlib import Path

import pytest

from detbuild.api.client import Client
from detbuild.events import Event
from tests.fakes import FakeEngine


@pytest.fixture
def events() -> list[Event]:
    """What the client warns of."""
    return []


@pytest.fixture
def client(tmp_path: Path, events: list[Event]) -> Client:
    return Client(path=tmp_path / "home", environ={}, connect=FakeEngine, emit=events.append)
