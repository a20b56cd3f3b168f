from __future__ import annotations

from collections.abc import Callable

import pytest

import determined as det
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo
from determined._run.info import TrialInfo


def test_outside_a_run_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    assert det.get_cluster_info() is None


def test_inside_a_run_it_tells_what_the_run_was_told(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = make_run(
        slots=2,
        gpu_ids=("GPU-1", "GPU-2"),
        hparams={"lr": 0.1},
        config={"data": {"url": "x"}},
        checkpoints=("a", "b"),
    )
    monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)
    found = det.get_cluster_info()
    assert found is not None
    assert found.trial == TrialInfo(
        trial_id=7,
        experiment_id=3,
        trial_seed=42,
        hparams={"lr": 0.1},
        steps_completed=0,
        _config=info.config,
    )
    assert (found.master_url, found.session_token) == ("", "")
    assert (found.slot_ids, found.gpu_uuids, found.container_slot_counts) == (
        (0, 1),
        ("GPU-1", "GPU-2"),
        (2,),
    )
    assert (found.latest_checkpoint, found.user_data) == ("a", {"url": "x"})
