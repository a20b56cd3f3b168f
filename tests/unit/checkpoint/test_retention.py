from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.retention import Candidate, Policy, parents, pending_sources, select_kept, sources
from detbuild.runtime.limits import requested_limits
from detbuild.store.experiment_dir import Goal, Header
from detbuild.store.home import Home
from detbuild.store.records import RunRecords
from detbuild.store.state import ExperimentState, RunState, TrialState
from determined._contract.records import Checkpoint, Restored

if TYPE_CHECKING:
    from collections.abc import Callable


# Determined's reference case: two trials with five checkpoints each; smaller is better.
METRICS = {1: (None, None, 0.6, 0.5, 0.4), 2: (None, 0.2, 0.3, None, None)}
CANDIDATES = tuple(
    Candidate(uuid=str(5 * (trial - 1) + place), trial_id=trial, steps_completed=100 * place, metric=metric)
    for trial, metrics in METRICS.items()
    for place, metric in enumerate(metrics, start=1)
)


def numbers(
    exp_best: int,
    trial_best: int,
    trial_latest: int,
    *,
    protected: tuple[str, ...] = (),
    smaller: bool = True,
) -> list[int]:
    policy = Policy(save_experiment_best=exp_best, save_trial_best=trial_best, save_trial_latest=trial_latest)
    found = select_kept(CANDIDATES, policy, Goal("loss", smaller), protected=frozenset(protected))
    return sorted(int(uuid) for uuid in found)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ((0, 0, 0), []),
        ((2, 0, 0), [7, 8]),
        ((5, 0, 0), [3, 4, 5, 7, 8]),
        ((9, 0, 0), [3, 4, 5, 7, 8]),
        ((0, 1, 0), [5, 7]),
        ((0, 3, 0), [3, 4, 5, 7, 8]),
        ((0, 9, 0), [3, 4, 5, 7, 8]),
        ((0, 0, 1), [5, 10]),
        ((0, 0, 3), [3, 4, 5, 8, 9, 10]),
        ((2, 1, 0), [5, 7, 8]),
        ((2, 0, 1), [5, 7, 8, 10]),
        ((0, 1, 1), [5, 7, 10]),
        ((2, 1, 1), [5, 7, 8, 10]),
    ],
)
def test_the_reference_case_of_determined(policy: tuple[int, int, int], expected: list[int]) -> None:
    assert numbers(*policy) == expected


def test_larger_may_be_better() -> None:
    assert numbers(1, 1, 0, smaller=False) == [3, 8]


def test_what_is_protected_stays() -> None:
    assert numbers(0, 0, 0, protected=("2", "6")) == [2, 6]


def test_protected_ones_take_nobodys_place() -> None:
    assert numbers(2, 0, 0, protected=("7",)) == [7, 8]


def test_the_latest_of_a_trial_that_was_never_validated_is_its_own() -> None:
    unvalidated = [
        Candidate(uuid=f"{trial}-{step}", trial_id=trial, steps_completed=step, metric=None)
        for trial in (1, 2, 3)
        for step in (10, 20)
    ]
    policy = Policy(save_trial_best=1, save_trial_latest=1)
    found = select_kept(unvalidated, policy, Goal("loss"), protected=frozenset())
    assert sorted(found) == ["1-20", "2-20", "3-20"]


def test_of_equal_metrics_the_earlier_checkpoint_is_the_best() -> None:
    equal = [Candidate(uuid=name, trial_id=1, steps_completed=1, metric=0.5) for name in ("a", "b")]
    for smaller in (True, False):
        found = select_kept(
            equal,
            Policy(save_trial_best=1, save_trial_latest=0),
            Goal("loss", smaller),
            protected=frozenset(),
        )
        assert found == {"a"}


def test_what_was_trained_furthest_is_the_latest_in_whatever_order_it_was_written() -> None:
    written = [
        Candidate(uuid="far", trial_id=1, steps_completed=20, metric=None),
        Candidate(uuid="again", trial_id=1, steps_completed=10, metric=None),
    ]
    found = select_kept(written, Policy(), Goal("loss"), protected=frozenset())
    assert found == {"far"}


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
