from __future__ import annotations

import json
from pathlib import Path

import pytest

from detbuild.store.state import load
from tests.experiments import Report, write_experiment
from tests.fakes import Exit

TRIALS = [
    [Report(1, 0.5, 0.9), Report(2, 0.4, 0.1)],
    [Report(1, 0.1, 0.2), Report(2, 0.2, 0.3)],
    [Report(1, 0.3, 0.8)],
]


@pytest.fixture
def best(shell, tmp_path, monkeypatch):
    """Gives the uuid of a trial's checkpoint at a batch."""
    monkeypatch.chdir(tmp_path)
    state = load(write_experiment(shell.home, TRIALS))
    return {
        (trial.id, one.steps_completed): one.uuid
        for trial in state.trials.values()
        for one in trial.progress.checkpoints
    }


def test_the_best_checkpoints_are_one_of_each_trial(shell, best):
    rows = json.loads(shell("det", "e", "lc", "1", "--best", "2", "--json").out)
    assert [row["uuid"] for row in rows] == [best[2, 1], best[3, 1]]
    assert len(json.loads(shell("det", "e", "lc", "1", "--json").out)) == 5
    lines = shell("det", "e", "lc", "1", "--best", "9", "--csv").out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["uuid", best[2, 1], best[3, 1], best[1, 2]]


def test_an_experiments_best_checkpoints_are_copied(shell, best):
    out = shell("det", "e", "download", "1", "--top-n", "2", "-o", "models").out
    assert out.splitlines() == [f"models/{best[2, 1]}", f"models/{best[3, 1]}"]
    assert (Path("models", best[3, 1], "weights")).read_bytes() == b"123"


def test_another_metric_and_direction_choose_others(shell, best):
    words = ("--sort-by", "accuracy", "--smaller-is-better", "false")
    assert shell("det", "e", "download", "1", *words).out == f"checkpoints/{best[1, 1]}\n"
    missing = shell("det", "e", "download", "1", "--sort-by", "f1")
    assert "no checkpoint with a value for f1" in missing.err


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ((), (1, 2)),
        (("--latest",), (1, 2)),
        (("--best",), (1, 2)),
        (("--best", "--sort-by", "accuracy", "--smaller-is-better", "false"), (1, 1)),
    ],
)
def test_a_trials_newest_or_best_checkpoint_is_copied(shell, best, words, key):
    assert shell("det", "t", "download", "1/1", *words).out == f"checkpoints/{best[key]}\n"


def test_a_trials_checkpoint_is_named_by_the_beginning_of_its_uuid(shell, best):
    assert best[2, 2] in shell("det", "t", "download", "1/2", "--uuid", best[2, 2][:9]).out
    assert shell("det", "t", "download", "1/1", "--uuid", best[2, 2]).code == 2
    assert shell("det", "t", "download", "1/1", "--uuid", "").code == 2
    assert shell("det", "t", "download", "1/1", "--uuid", "a", "--best").code == 2
    assert shell("det", "t", "download", "1/1", "--sort-by", "loss").code == 2


def copy_out(process):
    target = next(Path(mount.source) for mount in process.spec.mounts)
    (target / "model_def.py").write_text("class Tiny(Base): ...\n")
    return Exit(0)


def test_the_code_is_copied_out_of_the_image(shell, best):
    shell.engine.program = copy_out
    shell.engine.add_image("detbuild:" + "b" * 64)
    assert shell("det", "e", "download-model-def", "1").out == "experiment_1_model_def\n"
    assert Path("experiment_1_model_def", "model_def.py").read_text() == "class Tiny(Base): ...\n"
    assert not shell.engine.containers
    assert "already exists" in shell("det", "e", "download-model-def", "1").err


def test_code_that_cannot_be_had_is_an_error_and_leaves_nothing(shell, best):
    assert "the image of experiment 1 was removed" in shell("det", "e", "download-model-def", "1").err
    shell.engine.program = lambda _process: Exit(1, output=("no python3",))
    shell.engine.add_image("detbuild:" + "b" * 64)
    assert "no python3" in shell("det", "e", "download-model-def", "1", "-o", "code").err
    write_experiment(shell.home, local=True)
    assert "not in an image" in shell("det", "e", "download-model-def", "2").err
    assert list(Path().glob("*code*")) + list(Path().glob(".*code*")) == []
    assert not shell.engine.containers
