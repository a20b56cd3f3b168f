"""Deleting an experiment: what is refused, what goes, and that a crash anywhere is finished later."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import pytest

from detbuild.checkpoint.source import register_checkpoint
from detbuild.controller.checkpoints import collect
from detbuild.controller.deletion import delete, finish_deletions
from detbuild.controller.lease import lease
from detbuild.engine.protocol import ContainerSpec
from detbuild.errors import ConfigError, EngineError, LeaseError
from detbuild.runtime.labels import EXPERIMENT_LABEL, HOME_LABEL
from detbuild.store.home import Home
from detbuild.store.registry import Model, create_model
from tests.experiments import Report, uuids, write_experiment
from tests.fakes import Crash, Effects, FakeEngine, run_for_ever

EFFECTS = ("rename", "replace", "unlink", "rmdir")  # of os: all by which a deletion changes the disk


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def shared(path):
    """A storage outside of the experiment's folder."""
    return {"checkpoint_storage": {"type": "shared_fs", "host_path": str(path)}}


def left_of(home):
    return sorted(path.name for path in home.experiments.iterdir() if not path.name.startswith(".retired"))


def container(engine, home, experiment_id):
    engine.add_image("sha256:0")
    labels = {HOME_LABEL: home.id, EXPERIMENT_LABEL: str(experiment_id)}
    started = engine.create(ContainerSpec(name=f"c-{experiment_id}", image="sha256:0", labels=labels))
    engine.start(started)


def test_folder_checkpoints_and_containers_are_gone(home, tmp_path):
    engine = FakeEngine(run_for_ever)
    storage = tmp_path / "shared"
    storage.mkdir()
    folder = write_experiment(home.path, config=shared(storage))
    write_experiment(home.path)
    for path in list(folder.checkpoints.iterdir()):
        path.rename(storage / path.name)
    (storage / "foreign").mkdir()
    container(engine, home, 1)
    container(engine, home, 2)
    delete(home, 1, lambda: engine)
    assert left_of(home) == ["2"]
    assert [path.name for path in storage.iterdir()] == ["foreign"]
    assert [c.process.spec.name for c in engine.containers.values()] == ["c-2"]


def test_the_number_of_a_deleted_experiment_is_not_given_out_again(home):
    write_experiment(home.path)
    delete(home, write_experiment(home.path).id, FakeEngine)
    assert home.new_experiment().id == 3


def test_an_experiment_that_has_not_ended_is_refused(home):
    write_experiment(home.path, state=None)
    with pytest.raises(ConfigError, match="experiment 1 has not ended: it is running"):
        delete(home, 1, FakeEngine, force=True)
    assert left_of(home) == ["1"]


def hold_for_a_while(folder):
    """As a controller that has written the end and removes checkpoints from a bucket."""
    taken = threading.Event()

    def hold():
        with lease(folder.lock_file):
            taken.set()
            time.sleep(0.8)  # longer than anybody waits who only looks

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()


def test_a_controller_that_finishes_its_last_work_is_waited_for(home):
    folder = write_experiment(home.path)
    hold_for_a_while(folder)
    collect(home, 1)
    hold_for_a_while(folder)
    delete(home, 1, FakeEngine)
    assert left_of(home) == []


def test_an_experiment_that_a_controller_holds_is_refused(home, monkeypatch):
    folder = write_experiment(home.path)
    monkeypatch.setattr("detbuild.controller.lease._LAST_WORK", 0.0)
    with lease(folder.lock_file), pytest.raises(LeaseError):
        delete(home, 1, FakeEngine)


def test_a_registered_checkpoint_is_kept_unless_it_is_forced(home):
    folder = write_experiment(home.path)
    create_model(home, Model(name="net", created=1.0))
    register_checkpoint(home, "net", uuids(folder)[0])
    with pytest.raises(ConfigError, match="is registered as net:1"):
        delete(home, 1, FakeEngine)
    assert left_of(home) == ["1"]
    delete(home, 1, FakeEngine, force=True)
    assert left_of(home) == []


def test_the_source_of_another_experiment_is_kept_until_that_one_is_gone(home):
    source = uuids(write_experiment(home.path))[0]
    write_experiment(home.path, config={"searcher": {"name": "single", "source_checkpoint_uuid": source}})
    with pytest.raises(ConfigError, match=f"{source} of experiment 1 is the source of experiment 2"):
        delete(home, 1, FakeEngine)
    delete(home, 1, FakeEngine, force=True)
    assert left_of(home) == ["2"]


def test_an_engine_that_is_away_is_an_error_unless_it_is_forced(home):
    write_experiment(home.path)
    engine = FakeEngine()
    engine.go_away()
    with pytest.raises(EngineError):
        delete(home, 1, lambda: engine)
    assert left_of(home) == ["1"]
    delete(home, 1, lambda: engine, force=True)
    assert left_of(home) == []


def test_a_local_experiment_needs_no_engine(home):
    write_experiment(home.path, local=True)

    def connect():
        raise AssertionError

    delete(home, 1, connect)
    assert left_of(home) == []


def prepared(tmp_path):
    storage = tmp_path / "shared"
    storage.mkdir()
    home = Home.open(tmp_path / "home")
    folder = write_experiment(home.path, [[Report(1, 0.5), Report(2, 0.25)]], config=shared(storage))
    for path in list(folder.checkpoints.iterdir()):
        path.rename(storage / path.name)
    return home, storage


def counting(monkeypatch, effects):
    def counted(name, real):
        def call(*args, **options):
            with effects(name):
                return real(*args, **options)

        return call

    for name in EFFECTS:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))


def effects_of_one_deletion(tmp_path, monkeypatch):
    home, _ = prepared(tmp_path)
    effects = Effects()
    with monkeypatch.context() as patch:
        counting(patch, effects)
        delete(home, 1, FakeEngine)
    return effects.count


def test_a_crash_at_any_effect_is_finished_by_whoever_comes_next(tmp_path, monkeypatch):
    (tmp_path / "undisturbed").mkdir()
    last = effects_of_one_deletion(tmp_path / "undisturbed", monkeypatch)
    assert last > 20
    for number in range(1, last + 2):
        for when in ("before", "after"):
            place = tmp_path / f"{number}-{when}"
            place.mkdir()
            home, storage = prepared(place)
            with monkeypatch.context() as patch, suppress(Crash):
                counting(patch, Effects(crash_at=number, crash_when=when))
                delete(home, 1, FakeEngine)
            assert finish_deletions(home) == ()
            if home.folder(1).exists:  # it died before it had said what it was about to do
                assert len(list(storage.iterdir())) == 2
                delete(home, 1, FakeEngine)
            assert (left_of(home), list(storage.iterdir())) == ([], []), (number, when)
            assert home.new_experiment().id == 2


def test_what_cannot_be_finished_is_said_and_tried_again(home, monkeypatch):
    folder = write_experiment(home.path)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", refuse)
        patch.setattr("determined._contract.untrusted.UntrustedDir.remove_tree", refuse)
        with pytest.raises(EngineError, match="cannot write"):
            delete(home, 1, FakeEngine)
        (trouble,) = finish_deletions(home)
        assert "cannot write" in str(trouble)
    assert folder.exists
    assert finish_deletions(home) == ()
    assert left_of(home) == []


def refuse(*_args, **_options):
    raise PermissionError(13, "Permission denied")
