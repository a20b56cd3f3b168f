from __future__ import annotations

import pytest

from detbuild.api.slots import slots
from tests.fakes import ContainerSpec, FakeEngine, gpus, run_for_ever


@pytest.fixture
def engine(client, tmp_path, monkeypatch):
    monkeypatch.setattr("detbuild.runtime.slot_requests.lock_directory", lambda: tmp_path)
    engine = FakeEngine(run_for_ever)
    engine.engine_info = gpus("0", "1")
    object.__setattr__(client, "connect", lambda: engine)
    return engine


def test_a_slot_has_the_trial_of_the_container_that_holds_it(client, engine):
    labels = {
        "detbuild.experiment": "3",
        "detbuild.trial": "2",
        "detbuild.user": "0",
        "detbuild.gpus": "nvidia.com/gpu=1",
    }
    spec = ContainerSpec(name="c", image=engine.add_image("some:image"), labels=labels)
    engine.start(engine.create(spec))
    held, queued = slots(client)
    rows = [
        (row["slot"], row["experiment"], row["trial"], row["user"]) for row in held if row["kind"] == "gpu"
    ]
    assert rows == [("nvidia.com/gpu=0", None, None, None), ("nvidia.com/gpu=1", 3, 2, "root")]
    assert queued == []


def test_slots_outside_the_limit_of_the_home_are_not_usable(client, engine):
    client.path.mkdir(parents=True)
    (client.path / "config.yaml").write_text("gpus: [0]\n")
    held, _ = slots(client)
    assert [row["usable"] for row in held if row["kind"] == "gpu"] == [True, False]
