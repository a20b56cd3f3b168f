"""What is said last about an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.checkpoint.find import checkpoints_of
from detbuild.cli.pages import ending_page, next_commands
from detbuild.store import journal
from detbuild.store.state import load
from tests.experiments import Report, write_experiment

if TYPE_CHECKING:
    from pathlib import Path


def test_the_checkpoint_that_is_named_at_the_end_is_the_best_of_all_trials(tmp_path: Path) -> None:
    folder = write_experiment(
        tmp_path, [[Report(1, 0.9), Report(2, 0.5)], [Report(1, 0.1), Report(2, 0.3)], [Report(1, 0.4)]]
    )
    state, found = (
        load(folder),
        {(c.trial_id, c.checkpoint.steps_completed): c for c in checkpoints_of(folder)},
    )
    assert "loss=0.1" in ending_page(state, folder)
    assert f"  checkpoint       {found[2, 1].directory}\n" in ending_page(state, folder)
    assert f"detbuild checkpoint download {found[2, 1].checkpoint.uuid} -o DIR" in next_commands(
        state, folder
    )


def test_without_any_that_was_validated_it_is_the_newest(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, [[Report(1, float("nan")), Report(2, float("nan"))]])
    newest = checkpoints_of(folder)[0]
    assert newest.checkpoint.steps_completed == 2
    assert newest.checkpoint.uuid in next_commands(load(folder), folder)


def test_what_could_not_be_uploaded_is_said_at_the_end(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path)
    assert "pending" not in ending_page(load(folder), folder)
    folder.record(journal.StorageBlocked(why="the bucket is gone"))
    assert ending_page(load(folder), folder).startswith("  pending          the bucket is gone\n")
