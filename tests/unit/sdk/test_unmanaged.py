"""An unmanaged run: a script that was started by hand becomes an experiment of this host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detbuild.store.home import Home
from detbuild.store.state import ExperimentState, load

ROOT = Path(__file__).parents[3]

SCRIPT = """
from determined.experimental import core_v2
import sys

core_v2.init(
    defaults=core_v2.DefaultConfig(
        name="by hand",
        hparams={"lr": 0.5},
        labels=["mine"],
        searcher={"name": "custom", "metric": "score", "smaller_is_better": False},
    ),
    unmanaged=core_v2.UnmanagedConfig(external_experiment_id="cv", external_trial_id="1"),
)
begun = 0
if core_v2.info.latest_checkpoint is not None:
    with core_v2.checkpoint.restore_path(core_v2.info.latest_checkpoint) as path:
        begun = int((path / "state").read_text())
print(begun, core_v2.info.trial.hparams, core_v2.url_reverse_webui_exp_view())
for batch in range(begun + 1, begun + 4):
    core_v2.train.report_training_metrics(steps_completed=batch, metrics={"loss": 1 / batch})
core_v2.train.report_validation_metrics(steps_completed=batch, metrics={"score": batch})
with core_v2.checkpoint.store_path({"steps_completed": batch}) as (path, _):
    (path / "state").write_text(str(batch))
END
"""

LAST = len(SCRIPT.splitlines())  # the line that each test writes


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def script(home: Home, end: str, *launcher: str, text: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    """Run the script with another last line, if need be by a launcher."""
    place = home.path.parent / "work"
    place.mkdir(exist_ok=True)
    (place / "train.py").write_text(text.replace("END", end))
    environ = {
        **os.environ,
        "DETBUILD_HOME": str(home.path),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'harness'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *launcher, "train.py"],
        cwd=place,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def states(home: Home) -> list[ExperimentState]:
    return [load(home.experiment(number)) for number in home.ids()]


@pytest.mark.parametrize("end", ["core_v2.close()", ""])
def test_what_a_script_reports_is_an_experiment_of_its_name(home: Home, end: str) -> None:
    ended = script(home, end)
    assert ended.returncode == 0, ended.stderr
    (state,) = states(home)
    assert (state.state, state.header.name, state.header.local) == ("COMPLETED", "by hand", True)
    assert state.header.labels == ("mine", "external:cv/1")
    trial = state.trials[1]
    assert (trial.progress.steps_completed, trial.hparams) == (3, {"lr": 0.5})
    assert trial.progress.best is not None
    assert trial.progress.best.metrics == {"score": 3}
    assert ended.stdout == f"0 {{'lr': 0.5}} {home.experiment(1).path.as_uri()}\n"


def test_the_next_one_of_the_same_names_goes_on_from_its_checkpoint(home: Home) -> None:
    script(home, "")
    assert script(home, "").stdout.startswith("3 ")
    assert [state.trials[1].progress.steps_completed for state in states(home)] == [3, 6]


def test_so_it_does_when_that_is_in_a_bucket_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.s3 import s3_server

    text = SCRIPT.replace("        labels=", '        checkpoint_storage="s3://lab/nets",\n        labels=')
    with s3_server() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "hidden-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        ended = script(home, "", text=text)
        assert ended.returncode == 0, ended.stderr
        assert list(home.experiment(1).checkpoints.iterdir()) == []
        assert any(key.endswith("/state") for key in server.keys("nets/"))
        assert script(home, "", text=text).stdout.startswith("3 ")


def test_an_address_where_nothing_can_be_kept_is_refused(home: Home) -> None:
    text = SCRIPT.replace("        labels=", '        checkpoint_storage="ftp://lab",\n        labels=')
    ended = script(home, "", text=text)
    assert ended.returncode == 1
    assert "ftp://lab is not a supported storage URL" in ended.stderr
    assert "s3://BUCKET/PREFIX" in ended.stderr
    assert home.ids() == ()


def test_a_script_that_fails_has_failed_at_its_line_and_what_it_reported_is_kept(home: Home) -> None:
    assert script(home, "raise ValueError('no')").returncode == 1
    (state,) = states(home)
    assert (state.state, state.why) == ("ERROR", f"ValueError: no (train.py:{LAST})")
    assert state.trials[1].progress.steps_completed == 3


def test_hyperparameters_that_cannot_work_end_it_without_a_failure(home: Home) -> None:
    with_block = (
        "core_v2.close()\n"
        "import determined\n"
        "with core_v2.init_context(config=core_v2.Config(name='other')) as context:\n"
        "    raise determined.InvalidHP('too wide')\n"
    )
    assert script(home, with_block).returncode == 0
    assert [state.state for state in states(home)] == ["COMPLETED", "COMPLETED"]
    assert states(home)[1].why == f"InvalidHP: too wide (train.py:{LAST + 3})"


def test_several_processes_are_one_experiment(home: Home) -> None:
    pytest.importorskip("torch")
    stored = SCRIPT.replace('{"steps_completed": batch})', '{"steps_completed": batch}, shard=True)')
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    ended = script(home, "open(f'rank-{core_v2.distributed.rank}', 'x').close()", *launcher, text=stored)
    assert ended.returncode == 0, ended.stderr
    assert sorted(file.name for file in (home.path.parent / "work").glob("rank-*")) == ["rank-0", "rank-1"]
    (state,) = states(home)
    assert (state.state, state.trials[1].progress.steps_completed) == ("COMPLETED", 3)


def test_a_config_that_cannot_be_is_refused_and_nothing_begins(home: Home) -> None:
    ended = script(home, "", text=SCRIPT.replace('name="by hand"', "name=7"))
    assert ended.returncode == 1
    assert "name: must be text, not 7" in ended.stderr
    assert states(home) == []
