from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from detbuild.errors import ConfigError, EngineError
from detbuild.store.home import Home
from detbuild.store.registry import (
    Model,
    Version,
    change_model,
    change_version,
    create_model,
    delete_model,
    delete_version,
    models,
    read_model,
    register,
    registered,
)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def new(home, name="net", **values):
    return create_model(home, Model(name=name, created=1.0, **values))


def version(checkpoint="u-1", **values):
    return Version(version=0, checkpoint=checkpoint, created=2.0, **values)


def test_a_model_is_one_file_under_its_name(home):
    new(home, description="d", labels=("a",), metadata={"k": [1]})
    assert (home.path / "models" / "net.json").is_file()
    assert read_model(home, "net") == Model(
        name="net", created=1.0, description="d", labels=("a",), metadata={"k": [1]}
    )


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden", "ü n i", "a%2Fb", "..", "x.json"])
def test_any_name_is_found_again_and_stays_inside_the_registry(home, name):
    new(home, name)
    assert read_model(home, name).name == name
    assert [model.name for model in models(home)] == [name]
    assert [path.parent for path in home.path.rglob("*.json") if path.name != "home.json"] == [
        home.path / "models"
    ]


@pytest.mark.parametrize("name", ["", "  ", "x" * 300])
def test_a_name_that_no_file_can_have_is_refused(home, name):
    with pytest.raises(ConfigError, match="not a valid model name"):
        new(home, name)


def test_a_name_is_given_once(home):
    new(home)
    with pytest.raises(ConfigError, match="model net already exists"):
        new(home)


def test_a_model_that_is_not_there_is_an_error_of_every_call(home):
    for call in (
        lambda: read_model(home, "no"),
        lambda: delete_model(home, "no"),
        lambda: register(home, "no", version()),
        lambda: change_model(home, "no", lambda model: model),
    ):
        with pytest.raises(ConfigError, match="there is no model no"):
            call()


def test_versions_count_from_1_and_a_deleted_number_does_not_come_back(home):
    new(home)
    assert [register(home, "net", version(f"u-{n}")).version for n in range(3)] == [1, 2, 3]
    delete_version(home, "net", 3)
    assert register(home, "net", version("u-9")).version == 4
    with pytest.raises(ConfigError, match="model net has no version 3"):
        read_model(home, "net").version(3)


def test_a_version_is_changed_alone(home):
    new(home)
    register(home, "net", version("u-1"))
    register(home, "net", version("u-2"))
    change_version(home, "net", 2, lambda one: replace(one, name="best", metadata={"a": 1}))
    first, second = read_model(home, "net").versions
    assert (first.name, second.name, second.metadata) == ("", "best", {"a": 1})


def test_registrations_at_the_same_time_get_numbers_of_their_own(home):
    new(home)
    threads = [
        threading.Thread(target=register, args=(home, "net", version(f"u-{number}"))) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.version for one in read_model(home, "net").versions) == list(range(1, 21))


def test_every_registered_checkpoint_is_named_with_what_names_it(home):
    new(home)
    new(home, "other")
    register(home, "net", version("u-1"))
    register(home, "other", version("u-1"))
    register(home, "other", version("u-2"))
    assert registered(home) == {"u-1": ("net:1", "other:1"), "u-2": ("other:2",)}


def test_a_damaged_file_is_an_error_and_no_licence_to_remove_checkpoints(home):
    new(home)
    (home.path / "models" / "net.json").write_text("{")
    with pytest.raises(EngineError, match=r"net\.json"):
        registered(home)


def test_a_home_without_a_registry_has_no_models(home):
    assert (models(home), registered(home)) == ((), {})
