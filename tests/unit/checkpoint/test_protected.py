from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.protected import parents, pending_sources, sources
from detbuild.launch.limits import requested_limits
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from detbuild.store.records import RunRecords
from detbuild.store.state import ExperimentState, RunState, TrialState
from determined._records import Checkpoint, Restored

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_what_experiments_start_from_is_protected(home: Home) -> None:
    for searcher in ({"source_checkpoint_uuid": "1"}, {}, None):
        folder = home.new_experiment()
        folder.config_file.write_text(json.dumps({"searcher": searcher}))
    home.new_experiment().config_file.write_text("{")
    assert list(sources(home)) == [(1, "1")]


def make_endless(file: Path) -> None:
    file.touch()
    os.truncate(file, 1 << 40)


def make_a_link_to_a_pipe(file: Path) -> None:
    os.mkfifo(file.with_name("pipe"))
    file.symlink_to("pipe")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to a pipe": make_a_link_to_a_pipe,
    "a directory": Path.mkdir,
    "a terabyte": make_endless,
    "nested too deeply": lambda file: file.write_text("[" * 200_000),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\0"),
    "of other types": lambda file: file.write_text('{"searcher": [1], "resources": {"memory": [1]}}'),
    "of other types below": lambda file: file.write_text(
        '{"searcher": {}, "resources": {"memory": [1]}, "environment": {}}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_config_that_cannot_be_read_holds_up_no_other_experiment(
    home: Home, damage: Callable[[Path], object]
) -> None:
    damage(home.new_experiment().config_file)
    whole = home.new_experiment()
    whole.config_file.write_text('{"searcher": {"source_checkpoint_uuid": "1"}}')
    assert list(sources(home)) == [(2, "1")]
    assert requested_limits(home.folder(1)) is None


def test_what_a_trial_of_a_search_started_from_is_protected() -> None:
    def checkpoint(uuid: str) -> Checkpoint:
        return Checkpoint(uuid, 1, {})

    parent = (RunRecords(checkpoints=(checkpoint("1"), checkpoint("2"))),)
    child = (
        RunRecords(restored=Restored("2", 1), checkpoints=(checkpoint("3"),)),
        RunRecords(restored=Restored("3", 2)),
    )
    assert parents((parent, child)) == {"2"}


def test_what_a_trial_that_has_not_begun_is_to_start_from_is_protected() -> None:
    begun = TrialState(id=1, source=("1",), runs=(RunState(run=0),))
    state = ExperimentState(
        header=Header(id=1, name="n", context_name="c", created=0.0),
        trials={1: begun, 2: TrialState(id=2, source=("2", "3"))},
    )
    assert pending_sources(state) == {"2", "3"}
