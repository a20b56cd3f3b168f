"""Experiments whose checkpoints are in a bucket, from submission to deletion, with a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild import experiment
from detbuild.checkpoint.download import damage, download
from detbuild.checkpoint.find import Found, checkpoints_of
from detbuild.checkpoint.retention import Policy
from detbuild.checkpoint.source import import_checkpoint, register_checkpoint
from detbuild.checkpoint.worker import Job, TransferResult, TransferWorker
from detbuild.cli.pages import ending_page
from detbuild.config.parse import parse_config
from detbuild.controller.checkpoints import collect, delete, remove_all
from detbuild.errors import ConfigError, EngineError
from detbuild.experiment import Host, SubmitRequest, this_host
from detbuild.store.home import Home
from detbuild.store.registry import Model, create_model
from detbuild.store.state import ExperimentState
from determined._contract.checkpoints import verify
from tests.experiments import handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clouds import Cloud
    from tests.s3 import S3Server

# Three checkpoints, the middle one the best; told to start from one, it says what is in it.
SAVES = """
import os
import sys
from pathlib import Path
from determined._contract import checkpoints
from determined._run.events import EventFile
from determined._contract.records import Checkpoint, Validation
from determined._contract.run_info import RunInfo

info = RunInfo.load(Path(os.environ["DETBUILD_RUN_DIR"]))
root, events = Path(info.checkpoint_dir), EventFile(Path(info.run_dir) / "events.jsonl", info.name)
if info.warm_start:
    print((root / info.checkpoints[0] / "weights").read_text())
    sys.exit()
for step, loss in ((1, 0.5), (2, 0.1), (3, 0.3)):
    with checkpoints.store(root, {"steps_completed": step}) as (directory, uuid):
        (directory / "weights").write_text(f"heavy {step}")
        (directory / "optimizer").mkdir()
        (directory / "optimizer" / "state").write_text("o")
    events.append(Validation(step, {"loss": loss}))
    events.append(Checkpoint(uuid, step, checkpoints.resources(root / uuid)))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return this_host({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


def order(
    tmp_path: Path, storage: dict[str, object], *, test_mode: bool = False, **searcher: object
) -> SubmitRequest:
    context = tmp_path / "model"
    context.mkdir(exist_ok=True)
    (context / "train.py").write_text(SAVES)
    config = {
        "name": "s",
        "entrypoint": [sys.executable, "train.py"],
        "searcher": {"name": "single", "metric": "loss", **searcher},
        "resources": {"slots_per_trial": 0},
        "checkpoint_storage": storage,
    }
    text = json.dumps(config)
    return SubmitRequest(config=parse_config(text), text=text, context_dir=context, test_mode=test_mode)


def train(wanted: SubmitRequest, host: Host, home: Home) -> ExperimentState:
    events: list[object] = []
    state = experiment.run_local(wanted, host, home, events.append)
    assert state.state == "COMPLETED", events
    return state


def found(home: Home, number: int = 1) -> dict[int, Found]:
    return {one.checkpoint.steps_completed: one for one in checkpoints_of(home.experiment(number))}


def states(home: Home) -> dict[int, str]:
    return {steps: one.state for steps, one in found(home).items()}


def test_what_is_kept_is_in_the_bucket_and_comes_back_from_there(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    state = train(order(tmp_path, s3.storage()), host, home)
    assert states(home) == {3: "COMPLETED", 2: "COMPLETED", 1: "DELETED"}
    kept = {found(home)[steps].checkpoint.uuid for steps in (2, 3)}
    assert {key.split("/")[1] for key in s3.keys("nets/")} == kept
    assert list(home.experiment(1).checkpoints.iterdir()) == []
    best = found(home)[2]
    assert (best.directory, best.url) == (None, f"s3://lab/nets/{best.checkpoint.uuid}")
    assert f"s3://lab/nets/{found(home)[2].checkpoint.uuid}" in ending_page(handle(home.experiment(1)), state)
    assert damage(best) == []
    download(best, tmp_path / "copy")
    assert verify(tmp_path / "copy") == []
    assert (tmp_path / "copy" / "weights").read_text() == "heavy 2"


def test_google_and_azure_keep_give_back_and_remove_the_same(
    tmp_path: Path, home: Home, host: Host, cloud: Cloud
) -> None:
    train(order(tmp_path, cloud.storage), host, home)
    assert states(home) == {3: "COMPLETED", 2: "COMPLETED", 1: "DELETED"}
    best, newest = found(home)[2], found(home)[3]
    download(best, tmp_path / "copy")
    assert (tmp_path / "copy" / "weights").read_text() == "heavy 2"
    delete(home, [newest.checkpoint.uuid], ["optimizer/**"])
    assert sorted(name.rpartition("/")[2] for name in cloud.names() if newest.checkpoint.uuid in name) == [
        "manifest.json",
        "metadata.json",
        "weights",
    ]
    collect(home, 1, Policy(save_trial_best=0, save_trial_latest=0))
    delete(home, [newest.checkpoint.uuid])
    assert cloud.names() == set()


def test_a_download_from_a_bucket_is_whole_or_nothing(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    newest = found(home)[3]
    s3.put(f"nets/{newest.checkpoint.uuid}/weights", b"light 3")
    with pytest.raises(EngineError, match="differs from the stored content"):
        download(newest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_a_download_that_is_interrupted_leaves_nothing(
    tmp_path: Path, home: Home, host: Host, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    answer = TransferWorker.answer

    def interrupted(self: TransferWorker, *, wait: float = 0.0) -> TransferResult | None:
        if list(tmp_path.glob(".copy.*.tmp")):
            raise KeyboardInterrupt
        return answer(self, wait=min(wait, 0.01))

    s3.slow = 0.2
    monkeypatch.setattr(TransferWorker, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(found(home)[3], tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


def test_a_submission_to_a_bucket_that_cannot_be_written_leaves_no_experiment(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    for storage in (s3.storage(bucket="nowhere"), s3.storage(endpoint_url=f"http://127.0.0.1:{port}")):
        with pytest.raises(EngineError, match="checkpoint_storage cannot be written"):
            experiment.run_local(order(tmp_path, storage), host, home, list[object]().append)
    assert home.ids() == ()


def test_the_credentials_are_in_nothing_that_others_can_read(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    holding = [path for path in home.path.rglob("*") if path.is_file() and b"hidden-key" in path.read_bytes()]
    assert sorted(path.name for path in holding) == ["config.json", "config.yaml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    assert all(b"hidden-key" not in body for body in s3.keys().values())


def test_in_test_mode_nothing_is_kept(tmp_path: Path, home: Home, host: Host, s3: S3Server) -> None:
    train(order(tmp_path, s3.storage(), test_mode=True), host, home)
    assert set(states(home).values()) == {"DELETED"}
    assert (s3.keys(), list(home.experiment(1).checkpoints.iterdir())) == ({}, [])


@pytest.mark.parametrize("source", [1, "1", "1/1"])
def test_an_experiment_starts_from_the_newest_checkpoint_of_a_trial(
    tmp_path: Path, home: Home, host: Host, s3: S3Server, source: object
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    train(order(tmp_path, {}, source_trial_id=source), host, home)
    assert home.experiment(2).run(1, 0).output("stdout").read_text() == "heavy 3\n"
    resolved = json.loads(home.experiment(2).config_file.read_bytes())["searcher"]
    newest = found(home)[3].checkpoint.uuid
    assert (resolved["source_trial_id"], resolved["source_checkpoint_uuid"]) == (None, newest)


def test_a_damaged_newest_checkpoint_of_a_trial_is_passed_over(
    tmp_path: Path, home: Home, host: Host
) -> None:
    train(order(tmp_path, {}), host, home)
    newest = found(home)[3].directory
    assert newest is not None
    (newest / "weights").write_text("light 3")
    train(order(tmp_path, {}, source_trial_id=1), host, home)
    assert home.experiment(2).run(1, 0).output("stdout").read_text() == "heavy 2\n"


def test_when_all_checkpoints_of_a_trial_are_damaged_all_are_named(
    tmp_path: Path, home: Home, host: Host
) -> None:
    train(order(tmp_path, {}), host, home)
    for one in found(home).values():
        if one.directory:
            (one.directory / "weights").write_text("")
    with pytest.raises(EngineError, match=r"(?s)all checkpoints .* damaged:.*damaged.*damaged"):
        experiment.run_local(order(tmp_path, {}, source_trial_id=1), host, home, list[object]().append)


@pytest.mark.parametrize(("source", "why"), [("1/2", "trial 1/2 has no checkpoint"), (7, "no experiment 7")])
def test_a_trial_that_is_not_there_is_refused(
    tmp_path: Path, home: Home, host: Host, source: object, why: str
) -> None:
    train(order(tmp_path, {}), host, home)
    with pytest.raises(ConfigError, match=why):
        experiment.run_local(order(tmp_path, {}, source_trial_id=source), host, home, list[object]().append)


# Told to start from one, it writes into every file of it, in place.
OVERWRITES = """
import os, sys
from pathlib import Path
from determined._contract.run_info import RunInfo
info = RunInfo.load(Path(os.environ["DETBUILD_RUN_DIR"]))
for path in (Path(info.checkpoint_dir) / info.checkpoints[0]).rglob("*"):
    if path.is_file():
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(b"XXXX")
"""


def _by_uuid(tmp_path: Path, home: Home, source: Found) -> dict[str, object]:
    return {"source_checkpoint_uuid": source.checkpoint.uuid}


def _by_trial(tmp_path: Path, home: Home, source: Found) -> dict[str, object]:
    return {"source_trial_id": 1}


def _by_registry(tmp_path: Path, home: Home, source: Found) -> dict[str, object]:
    create_model(home, Model(name="net", created=0.0))
    version = register_checkpoint(home, "net", source.checkpoint.uuid)
    return {"source_checkpoint_uuid": version.checkpoint}


def _by_import(tmp_path: Path, home: Home, source: Found) -> dict[str, object]:
    assert source.directory is not None
    return {"source_checkpoint_uuid": import_checkpoint(home, source.directory, "taken")}


def _by_import_of_anothers(tmp_path: Path, home: Home, source: Found) -> dict[str, object]:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "weights").write_text("heavy 3")
    return {"source_checkpoint_uuid": import_checkpoint(home, theirs, "anothers")}


@pytest.mark.parametrize("way", [_by_uuid, _by_trial, _by_registry, _by_import, _by_import_of_anothers])
def test_an_experiment_that_overwrites_what_it_started_from_damages_no_other(
    tmp_path: Path, home: Home, host: Host, way: Callable[[Path, Home, Found], dict[str, object]]
) -> None:
    train(order(tmp_path, {}), host, home)
    source = found(home)[3]
    wanted = order(tmp_path, {}, **way(tmp_path, home, source))
    (tmp_path / "model" / "train.py").write_text(OVERWRITES)
    train(wanted, host, home)
    others = [one.directory for one in checkpoints_of(home.experiment(1)) if one.directory]
    others += list(home.imported.iterdir()) if home.imported.exists() else []
    assert [verify(directory) for directory in others] == [[] for _ in others]
    (copy,) = home.experiment(2).checkpoints.iterdir()
    assert (copy / "weights").read_text().startswith("XXXX")


def test_an_overwritten_copy_of_a_checkpoint_in_a_bucket_damages_nothing_there(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    before = s3.keys("nets/")
    wanted = order(tmp_path, s3.storage(), source_trial_id=1)
    (tmp_path / "model" / "train.py").write_text(OVERWRITES)
    train(wanted, host, home)
    assert s3.keys("nets/") == before


def test_what_another_experiment_starts_from_is_neither_collected_nor_deleted(
    tmp_path: Path, home: Home, host: Host
) -> None:
    train(order(tmp_path, {}), host, home)
    best = found(home)[2].checkpoint.uuid
    train(order(tmp_path, {}, source_checkpoint_uuid=best), host, home)
    removed = collect(home, 1, Policy(save_trial_best=0, save_trial_latest=0))
    assert removed.kept == (best,)
    assert states(home) == {3: "DELETED", 2: "COMPLETED", 1: "DELETED"}
    with pytest.raises(ConfigError, match="is the source of experiment 2"):
        delete(home, [best])


def test_a_dry_run_removes_nothing(tmp_path: Path, home: Home, host: Host) -> None:
    train(order(tmp_path, {}), host, home)
    journal = home.experiment(1).journal_file.read_bytes()
    would = collect(home, 1, Policy(save_trial_best=0, save_trial_latest=0), dry_run=True)
    assert len(would.garbage) == 2
    assert home.experiment(1).journal_file.read_bytes() == journal
    assert states(home) == {3: "COMPLETED", 2: "COMPLETED", 1: "DELETED"}


def test_checkpoints_are_deleted_in_the_bucket_too(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    delete(home, [found(home)[2].checkpoint.uuid[:13]])
    assert states(home) == {3: "COMPLETED", 2: "DELETED", 1: "DELETED"}
    assert {key.split("/")[1] for key in s3.keys("nets/")} == {found(home)[3].checkpoint.uuid}


@pytest.mark.parametrize("where", ["here", "cloud"])
def test_some_files_of_a_checkpoint_are_deleted_and_the_rest_can_be_had(
    tmp_path: Path, home: Home, host: Host, s3: S3Server, where: str
) -> None:
    train(order(tmp_path, s3.storage() if where == "cloud" else {}), host, home)
    delete(home, [found(home)[3].checkpoint.uuid], ["optimizer/**"])
    newest = found(home)[3]
    assert (newest.state, newest.checkpoint.files) == ("PARTIALLY_DELETED", 2)
    download(newest, tmp_path / "copy")
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert [name for name in names if name != "optimizer"] == ["manifest.json", "metadata.json", "weights"]
    delete(home, [newest.checkpoint.uuid], ["**"])
    assert states(home)[3] == "DELETED"


def test_a_bucket_that_is_away_leaves_deleted_checkpoints_to_a_later_call(
    tmp_path: Path, home: Home, host: Host, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    monkeypatch.setattr("detbuild.controller.checkpoints._FIRST", 0.01)
    monkeypatch.setattr("detbuild.controller.checkpoints._LAST_TRIES", 2)
    s3.failing = float("inf")
    with pytest.raises(EngineError, match="could not be removed"):
        delete(home, [found(home)[2].checkpoint.uuid])
    assert states(home)[2] == "DELETED"
    s3.failing = 0
    assert collect(home, 1).garbage == ()
    assert {key.split("/")[1] for key in s3.keys("nets/")} == {found(home)[3].checkpoint.uuid}


def test_the_checkpoints_of_a_running_experiment_are_its_controllers(
    tmp_path: Path, home: Home, host: Host
) -> None:
    train(order(tmp_path, {}), host, home)
    file = home.experiment(1).journal_file
    file.write_bytes(
        b"".join(line for line in file.read_bytes().splitlines(keepends=True) if b"experiment_f" not in line)
    )
    for call in (lambda: collect(home, 1), lambda: delete(home, [found(home)[3].checkpoint.uuid])):
        with pytest.raises(ConfigError, match="has not ended"):
            call()


def test_all_checkpoints_of_an_experiment_are_removed_before_it_is(
    tmp_path: Path, home: Home, host: Host, s3: S3Server
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    for _ in range(2):
        remove_all(home.experiment(1))
        assert (s3.keys(), set(states(home).values())) == ({}, {"DELETED"})


def test_a_home_that_was_moved_finds_its_checkpoints(tmp_path: Path, home: Home, host: Host) -> None:
    train(order(tmp_path, {}), host, home)
    shutil.move(home.path, tmp_path / "elsewhere")
    moved = Home.open(tmp_path / "elsewhere")
    assert states(moved) == {3: "COMPLETED", 2: "COMPLETED", 1: "DELETED"}


def test_files_that_could_not_be_removed_are_not_recorded_as_removed(
    tmp_path: Path, home: Home, host: Host, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(order(tmp_path, s3.storage()), host, home)
    newest = found(home)[3].checkpoint.uuid
    monkeypatch.setattr("detbuild.controller.checkpoints._FIRST", 0.01)
    copy = home.experiment(1).checkpoints / newest
    download(found(home)[3], copy)
    ask = TransferWorker.ask

    def spoiling(self: TransferWorker, job: Job) -> None:
        (copy / "weights").unlink(missing_ok=True)  # after it was looked at, before it is changed
        ask(self, job)

    monkeypatch.setattr(TransferWorker, "ask", spoiling)
    with pytest.raises(EngineError, match=r"could not be removed: .*is damaged: weights is missing"):
        delete(home, [newest], ["optimizer/**"])
    assert (copy / "optimizer" / "state").exists()
    monkeypatch.setattr(TransferWorker, "ask", ask)
    (copy / "weights").write_text("heavy 3")
    collect(home, 1)
    assert not (copy / "optimizer" / "state").exists()
