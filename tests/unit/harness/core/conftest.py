"""A script in a run of detbuild, and one that is started by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo


@pytest.fixture
def in_run(make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunInfo]:
    """Make a run and be its script."""

    def make(**changes: object) -> RunInfo:
        info = make_run(entrypoint="python3 train.py", **changes)
        monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
        return info

    return make


@pytest.fixture
def by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return tmp_path
