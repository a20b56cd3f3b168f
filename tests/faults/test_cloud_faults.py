"""Checkpoints in a bucket, with a real engine and a real S3 server: no fault loses any of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.find import checkpoints_of
from detbuild.controller.requests import resume
from detbuild.store.state import Stored
from tests.faults.real import SEARCH, Trial, docker, expected
from tests.s3 import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.engine, pytest.mark.long]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with s3_server() as server:
        yield server


def whole(s3: S3Server) -> set[str]:
    """The checkpoints of the bucket; every file that their manifests name is there."""
    there = s3.keys("nets/")
    manifests = {key.split("/")[1]: body for key, body in there.items() if key.endswith("/manifest.json")}
    for uuid, body in manifests.items():
        assert {f"nets/{uuid}/{path}" for path in json.loads(body)["files"]} <= there.keys()
    return set(manifests)


def kept(trial: Trial) -> set[str]:
    return {one.checkpoint.uuid for one in checkpoints_of(trial.folder) if one.state == "COMPLETED"}


def stored(trial: Trial) -> Stored:
    return Stored.of(entry.fact for entry in trial.folder.journal())


def carrier(trial: Trial) -> int:
    """The process that uploads: the controller's child."""
    found = subprocess.run(
        ["ps", "--ppid", str(trial.controller()), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0]) if found.stdout.split() else 0


def test_everything_may_be_killed_while_checkpoints_are_uploaded(
    submit: Callable[..., Trial], s3: S3Server
) -> None:
    s3.slow = 0.05
    trial = submit(checkpoint_storage=s3.storage())
    trial.train_until(15)
    trial.until(lambda: carrier(trial), what="an upload")
    os.kill(carrier(trial), signal.SIGKILL)
    trial.until(lambda: len(whole(s3)) >= 1, what="a checkpoint in the bucket")
    trial.kill_controller()
    assert trial.id in resume(trial.home)
    trial.go_on()
    assert trial.end().state == "COMPLETED"
    trial.until(lambda: not trial.controller(), what="the controller's end")
    assert whole(s3) == kept(trial)
    assert [path.name for path in trial.folder.checkpoints.iterdir() if path.name != "go"] == []
    assert trial.reports() == expected()


def test_a_run_goes_on_from_a_checkpoint_that_has_left_this_host(
    submit: Callable[..., Trial], s3: S3Server
) -> None:
    trial = submit(checkpoint_storage=s3.storage())
    trial.train_until(15)
    trial.until(lambda: len(whole(s3)) == 3, what="three checkpoints in the bucket")
    trial.go_on()
    for path in trial.folder.checkpoints.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    os.kill(trial.worker(), signal.SIGKILL)
    assert trial.end().state == "COMPLETED"
    assert trial.reports() == expected()
    trial.until(lambda: not trial.controller(), what="the controller's end")
    assert whole(s3) == kept(trial)


def test_a_search_outlives_its_controllers_while_it_uploads_and_while_it_collects(
    submit: Callable[..., Trial], s3: S3Server
) -> None:
    s3.slow = 0.1
    trial = submit(**SEARCH, checkpoint_storage={**s3.storage(), "save_trial_best": 0})
    trial.until(lambda: any(call.startswith("PUT") for call in s3.calls[3:]), what="an upload")
    trial.kill_controller()
    assert trial.id in resume(trial.home)
    trial.until(lambda: stored(trial).deleted, what="the collection")
    trial.kill_controller()
    assert stored(trial).pending_delete
    listed = kept(trial)
    assert trial.id in resume(trial.home)
    trial.until(lambda: not stored(trial).has_pending and not trial.controller(), what="the controller's end")
    state = trial.state()
    assert (state.state, len(listed)) == ("COMPLETED", len(state.trials))
    assert whole(s3) == kept(trial) == listed
    assert list(trial.folder.checkpoints.iterdir()) == []


def test_the_credentials_are_in_no_container_and_no_image(submit: Callable[..., Trial], s3: S3Server) -> None:
    trial = submit(checkpoint_storage=s3.storage())
    trial.train_until(5)
    shown = docker("inspect", trial.container()) + docker("history", "--no-trunc", trial.state().header.image)
    assert "hidden-key" not in shown
    assert "hidden-key" not in docker("exec", trial.container(), "cat", "/run/detbuild/run/run.json")
    searched = docker(
        "exec", trial.container(), "sh", "-c", "grep -rl hidden-key /run /opt /proc/1/environ /tmp || true"
    )
    assert searched == ""
    trial.go_on()
    assert trial.end().state == "COMPLETED"
