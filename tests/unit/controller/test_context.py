from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.training import rig

if TYPE_CHECKING:
    from pathlib import Path


def test_the_owner_of_its_runs_sees_the_folders_of_the_runtime(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    context = tried.controller().context
    assert (context.home.path, context.owner.key(2, 3).name) == (tmp_path, f"detbuild-{tried.home.id}-1-2-3")
    assert context.owner.paths.run_dir == "/run/detbuild/run"
