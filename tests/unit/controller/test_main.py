from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.controller import __main__ as process
from detbuild.controller.lease import holder, lease
from detbuild.errors import EngineError
from tests.faults.training import Rig, rig

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.engine.protocol import Engine
    from detbuild.store.experiment_dir import ExperimentFolder


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    tried = rig(tmp_path)
    monkeypatch.setattr(process, "DockerEngine", lambda: tried.engine)
    return tried


def test_the_process_holds_the_lease_until_no_work_is_left(
    tried: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = []

    def drive(folder: ExperimentFolder, engine: Engine) -> None:
        holders.append(holder(folder.lock_file))
        assert engine is tried.engine
        tried.run()

    monkeypatch.setattr(process, "drive", drive)
    assert process.main([str(tried.folder.path)]) == 0
    assert tried.state().state == "COMPLETED"
    assert len(holders) == 1
    assert holders[0] is not None
    assert holder(tried.folder.lock_file) is None


def test_a_request_at_the_last_moment_is_not_missed(tried: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    monkeypatch.setattr(process, "drive", lambda *_: rounds.append(1))
    monkeypatch.setattr(process, "needs_controller", lambda _: len(rounds) < 3)
    assert process.main([str(tried.folder.path)]) == 0
    assert len(rounds) == 3


def test_an_experiment_has_one_controller(tried: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with lease(tried.folder.lock_file):
        assert process.main([str(tried.folder.path)]) == 75
    assert capsys.readouterr().err.startswith("error: ")


def test_errors_go_to_the_log_without_passwords(
    tried: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("cannot reach http://me:secret@host", hint="check it")

    monkeypatch.setattr(process, "drive", fail)
    assert process.main([str(tried.folder.path)]) == EngineError("").exit_code
    error = capsys.readouterr().err
    assert error.startswith("error: cannot reach")
    assert "hint: check it" in error
    assert "secret" not in error


def test_a_bug_is_logged_with_its_traceback(
    tried: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "drive", lambda *_: 1 / 0)
    assert process.main([str(tried.folder.path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
