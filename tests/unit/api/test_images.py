from __future__ import annotations

from dataclasses import replace

import pytest

from detbuild.api.images import bases, images, prune, run_in_image
from detbuild.errors import EngineError
from tests.experiments import write_experiment
from tests.fakes import FakeEngine, run_for_ever


@pytest.fixture
def engine(client):
    engine = FakeEngine(run_for_ever)
    object.__setattr__(client, "connect", lambda: engine)
    return engine


def test_only_images_of_experiments_are_listed(client, engine):
    engine.add_image("other:1")
    assert images(client) == []


def test_a_dry_run_of_pruning_removes_nothing(client, engine):
    assert prune(client, hours=0, dry_run=True, removed=print) == 0


def test_a_base_is_present_if_the_engine_has_it(client, engine):
    assert not any(base["present"] for base in bases(client))
    reference = bases(client)[0]["reference"]
    engine.add_image(reference)
    assert [base["reference"] for base in bases(client) if base["present"]] == [reference]


def test_a_command_runs_in_the_image_and_its_container_is_removed(client, engine):
    write_experiment(client.path, config={"resources": {"slots_per_trial": 0}})
    engine.images["sha256:" + "a" * 64] = engine.images[engine.add_image("x:1")]
    seen = []

    def attach(container):
        seen.append(engine.containers[container].process.spec.command)
        return 3

    experiment = client.experiment(1)
    assert run_in_image(experiment, ("ls", "-l"), attach, trial_id=1, slots=0, terminal=False) == 3
    assert (seen, engine.containers) == ([("-l",)], {})


def test_a_command_that_the_image_does_not_have_is_an_error(client, engine):
    write_experiment(client.path, config={"resources": {"slots_per_trial": 0}})
    engine.images["sha256:" + "a" * 64] = engine.images[engine.add_image("x:1")]
    inspect = engine.inspect
    engine.inspect = lambda name: replace(inspect(name), error="exec: not found")
    with pytest.raises(EngineError, match="cannot be started in the image of experiment 1"):
        run_in_image(client.experiment(1), ("x",), lambda _: 127, trial_id=1, slots=0, terminal=False)
