"""While the home cannot be written, the controller stays and waits; without a folder it leaves."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from detbuild.errors import EngineError
from detbuild.store import journal
from tests.faults.training import expected, rig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("looks", range(0, 12, 2))
def test_it_goes_on_when_they_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    def refuse(path: Path, _line: object) -> None:
        raise EngineError(f"cannot write {path}: Read-only file system")

    tried = rig(tmp_path)
    controller = tried.controller()
    for _ in range(looks):
        controller.step()
        tried.clock.wait(1.1)
    with monkeypatch.context() as patched:
        patched.setattr(journal, "append_synced", refuse)
        for _ in range(20):
            controller.step()
            tried.clock.wait(1.1)
    while not controller.done:
        controller.step()
        tried.clock.wait(1.1)
    assert (tried.state().state, tried.state().trials[1].restarts) == ("COMPLETED", 0)
    assert tried.reports() == expected()


def test_an_experiment_whose_folder_was_removed_is_driven_no_longer(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    controller = tried.controller()
    for _ in range(3):
        controller.step()
        tried.clock.wait(1.1)
    shutil.rmtree(tried.folder.path)
    with pytest.raises(EngineError, match="was removed while the experiment ran"):
        controller.step()
