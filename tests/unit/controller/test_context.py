from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.training import rig

if TYPE_CHECKING:
    from pathlib import Path


def test_it_names_the_runs_of_its_experiment(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    context = tried.controller().context
    assert (context.home.path, context.owner.key(2, 3).name) == (tmp_path, f"detbuild-{tried.home.id}-1-2-3")


def test_without_retries_no_restart_is_left(tmp_path: Path) -> None:
    context = rig(tmp_path, changes={"max_restarts": 3}).controller().context
    assert context.max_restarts == 3
    context.retries = False
    assert context.max_restarts == 0
