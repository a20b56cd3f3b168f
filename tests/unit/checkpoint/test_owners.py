"""Checkpoints that a run announces under names of others: in every storage nothing of the others changes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild import experiment
from detbuild.checkpoint.download import damage, download
from detbuild.checkpoint.find import checkpoints_of, find_checkpoint
from detbuild.checkpoint.owners import foreign_reason, owner_of
from detbuild.checkpoint.retention import Policy
from detbuild.checkpoint.source import import_checkpoint, register_checkpoint
from detbuild.config.parse import parse_config
from detbuild.controller import deletion
from detbuild.controller.checkpoints import collect, delete
from detbuild.errors import ConfigError
from detbuild.experiment import Host, SubmitRequest, this_host
from detbuild.store.home import Home
from detbuild.store.registry import Model, create_model
from determined._contract import checkpoints as contract_checkpoints
from tests.clouds import azure_server, gcs_server
from tests.fakes import FakeEngine
from tests.faults.training import submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.checkpoint.find import Found
    from tests.s3 import S3Server

# Stores a checkpoint of its own, and announces all that it is told of, with files of its own where it can.
SCRIPT = """
import json, os
from pathlib import Path
from determined._contract import checkpoints
from determined._run.events import EventFile
from determined._contract.records import Checkpoint
from determined._contract.run_info import RunInfo

info = RunInfo.load(Path(os.environ["DETBUILD_RUN_DIR"]))
root, events = Path(info.checkpoint_dir), EventFile(Path(info.run_dir) / "events.jsonl", info.name)
with checkpoints.store(root, {"steps_completed": 1}) as (path, uuid):
    (path / "weights").write_text("own")
events.append(Checkpoint(uuid, 1, checkpoints.resources(root / uuid)))
for number, name in enumerate(json.loads(Path("names.json").read_text())):
    if not (root / name).exists():
        with checkpoints.store(root, {"steps_completed": 2}, name) as (path, _):
            (path / "weights").write_text("forged")
            (path / "more").write_text("forged")
    events.append(Checkpoint(name, 2 + number, checkpoints.resources(root / name)))
"""
STRANGER = "0a1b2c3d-6a54-4d54-9c1b-0d0f3f2d9f11"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture(params=["s3", "gcs", "azure"])
def bucket(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[object, Callable[[], object]]]:
    """A `checkpoint_storage`, and a call that gives all that is in it."""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        yield s3.storage(), s3.keys
        return
    with {"gcs": gcs_server, "azure": azure_server}[request.param](monkeypatch) as cloud:
        yield cloud.storage, cloud.names


def run(home: Home, storage: object, *announced: str) -> int:
    """Run an experiment that announces these besides its own checkpoint; return its number."""
    context = home.path.parent / f"model-{home.id}"
    context.mkdir(exist_ok=True)
    (context / "train.py").write_text(SCRIPT)
    (context / "names.json").write_text(json.dumps(announced))
    config = {
        "name": "s",
        "entrypoint": [sys.executable, "train.py"],
        "searcher": {"name": "single", "metric": "loss"},
        "resources": {"slots_per_trial": 0},
        "checkpoint_storage": storage,
    }
    text = json.dumps(config)
    order = SubmitRequest(config=parse_config(text), text=text, context_dir=context)
    host: Host = this_host({"PATH": "/usr/bin:/bin", "HOME": str(home.path.parent)})
    state = experiment.run_local(order, host, home, list[object]().append)
    assert state.state == "COMPLETED"
    return state.header.id


def own(home: Home, number: int) -> Found:
    """The checkpoint that the experiment itself has stored."""
    (found,) = (one for one in checkpoints_of(home.experiment(number)) if one.checkpoint.steps_completed == 1)
    return found


def text_of(found: Found, target: Path) -> str:
    download(found, target)
    return (target / "weights").read_text()


def all_is_refused(home: Home, number: int, name: str) -> None:
    """All ways in which an experiment could change what it has announced under another's name."""
    forged = next(one for one in checkpoints_of(home.experiment(number)) if one.checkpoint.uuid == name)
    assert (forged.state, forged.url, forged.directory) == ("ERROR", None, None)
    assert damage(forged) == [f"it {forged.checkpoint.foreign}"]
    collected = collect(home, number, Policy(save_trial_best=0, save_trial_latest=0))
    assert name not in {*collected.garbage, *collected.kept}
    deletion.delete(home, number, FakeEngine)


def test_another_experiments_checkpoint_stays_what_it_is_in_every_bucket(
    tmp_path: Path, home: Home, bucket: tuple[object, Callable[[], object]]
) -> None:
    storage, content = bucket
    run(home, storage)
    victim = own(home, 1)
    before = content()
    other = Home.open(tmp_path / "other")
    for forger in (home, other):
        number = run(forger, storage, victim.checkpoint.uuid)
        assert text_of(find_checkpoint(home, victim.checkpoint.uuid), tmp_path / f"copy-{forger.id}") == "own"
        all_is_refused(forger, number, victim.checkpoint.uuid)
        assert content() == before
    assert text_of(find_checkpoint(home, victim.checkpoint.uuid[:9]), tmp_path / "copy") == "own"
    delete(home, [victim.checkpoint.uuid])
    assert not content()


def test_what_nobody_is_known_to_own_in_a_bucket_is_left_alone(home: Home, s3: S3Server) -> None:
    s3.put(f"nets/{STRANGER}/weights", b"of Determined")
    s3.put(f"nets/{STRANGER}/metadata.json", b"{}")
    before = s3.keys(f"nets/{STRANGER}")
    number = run(home, s3.storage(), STRANGER)
    assert s3.keys(f"nets/{STRANGER}") == before
    all_is_refused(home, number, STRANGER)
    assert s3.keys("nets/") == before


def test_a_manifest_of_the_trials_making_says_nothing_of_its_owner(home: Home, s3: S3Server) -> None:
    run(home, s3.storage())
    key = f"nets/{own(home, 1).checkpoint.uuid}/manifest.json"
    assert json.loads(s3.read(key))["owner"] == f"{home.id}/1"
    s3.put(key, json.dumps({**json.loads(s3.read(key)), "owner": "ffffffff/1"}).encode())
    before = s3.keys("nets/")
    delete(home, [own(home, 1).checkpoint.uuid])
    assert s3.keys("nets/") == before


def test_what_an_earlier_version_has_uploaded_can_be_deleted_by_its_experiment_alone(
    home: Home, s3: S3Server
) -> None:
    for _ in range(2):
        run(home, s3.storage())
    for number in (1, 2):
        file = home.experiment(number).journal_file
        file.write_bytes(file.read_bytes().replace(b',"free":true', b""))
        key = f"nets/{own(home, number).checkpoint.uuid}/manifest.json"
        s3.put(key, json.dumps({"files": json.loads(s3.read(key))["files"]}).encode())
    shutil.rmtree(home.owners)
    kept = own(home, 2).checkpoint.uuid
    forger = run(home, s3.storage(), kept)
    assert [owner_of(home, own(home, number).checkpoint.uuid) for number in (1, 2, 3)] == [1, 2, 3]
    all_is_refused(home, forger, kept)
    delete(home, [own(home, 1).checkpoint.uuid])
    assert {key.split("/")[1] for key in s3.keys("nets/")} == {kept}
    deletion.delete(home, 2, FakeEngine)
    assert s3.keys("nets/") == {}


def test_another_experiments_checkpoint_stays_in_a_shared_directory(tmp_path: Path, home: Home) -> None:
    shared = tmp_path / "shared"
    with contract_checkpoints.store(shared, {"steps_completed": 1}, STRANGER) as (path, _):
        (path / "weights").write_text("of Determined")
    run(home, {"type": "shared_fs", "host_path": str(shared)})
    victim = own(home, 1).checkpoint.uuid
    forger = run(home, {"type": "shared_fs", "host_path": str(shared)}, victim, STRANGER)
    for name in (victim, STRANGER):
        assert contract_checkpoints.verify(shared / name) == []
    assert {one.state for one in checkpoints_of(home.experiment(forger)) if one.checkpoint.foreign} == {
        "ERROR"
    }
    all_is_refused(home, forger, STRANGER)
    assert {path.name for path in shared.iterdir()} == {victim, STRANGER}
    deletion.delete(home, 1, FakeEngine)
    assert {path.name for path in shared.iterdir()} == {STRANGER}


def test_by_its_uuid_the_owners_checkpoint_is_found_and_no_others_is_registered_or_started_from(
    tmp_path: Path, home: Home
) -> None:
    run(home, {})
    victim = own(home, 1).checkpoint.uuid
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "weights").write_text("imported")
    import_checkpoint(home, taken, STRANGER)
    forger = run(home, {}, victim, STRANGER)
    assert find_checkpoint(home, victim).experiment_id == 1
    create_model(home, Model(name="net", created=0.0))
    register_checkpoint(home, "net", victim)
    with pytest.raises(ConfigError, match="is ERROR: there is nothing to register"):
        register_checkpoint(home, "net", STRANGER)
    with pytest.raises(ConfigError, match=f"does not belong to experiment {forger}: it was imported"):
        delete(home, [STRANGER])
    all_is_refused(home, forger, victim)  # though a model has it: it is not the forger's
    assert (home.imported / STRANGER / "weights").read_text() == "imported"
    assert text_of(find_checkpoint(home, victim), tmp_path / "copy") == "own"


def test_a_deleted_experiment_gives_up_its_claims(home: Home) -> None:
    run(home, {})
    name = own(home, 1).checkpoint.uuid
    assert owner_of(home, name) == 1
    deletion.delete(home, 1, FakeEngine)
    assert owner_of(home, name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "/etc",
        "a/b",
        "x",
        STRANGER.upper(),
        f"{STRANGER}/x",
        f" {STRANGER}",
        f"{STRANGER}\\n",
        "9" * 5000,
    ],
)
def test_a_record_of_a_checkpoint_whose_name_is_no_uuid_is_rejected(home: Home, name: str) -> None:
    number = run(home, {})
    folder = home.experiment(number)
    events = folder.run(1, 0).path / "events.jsonl"
    line = {"seq": 900, "run": "1-0", "time": 0, "kind": "checkpoint", "uuid": name, "steps_completed": 9}
    with events.open("ab") as file:
        file.write(json.dumps({**line, "resources": {}, "metadata": {}}).encode() + b"\n")
    shutil.rmtree(home.cache)
    assert [one.checkpoint.steps_completed for one in checkpoints_of(folder)] == [1]


def test_the_first_claim_of_a_home_passes_over_what_is_being_submitted_or_damaged(home: Home) -> None:
    submitted = submit(home, "")
    home.new_experiment()  # another process has not written it yet
    damaged = submit(home, "")
    damaged.journal_file.write_bytes(b"{")
    assert foreign_reason(home, submitted, "0b1c2d3e-0000-4000-8000-000000000001") == ""
