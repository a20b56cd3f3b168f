from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from detbuild.errors import ConfigError, EngineError
from detbuild.store.annotations import (
    Attributes,
    change_attributes,
    change_metadata,
    metadata_of,
    read_attributes,
    with_attributes,
    with_label,
    without_label,
)
from detbuild.store.experiment_dir import config_of
from tests.experiments import write_experiment

STORED = {"steps_completed": 3}


def test_metadata_are_those_stored_until_somebody_changes_them(tmp_path):
    assert metadata_of(tmp_path, "u", STORED) == STORED
    change_metadata(tmp_path, "u", STORED, lambda before: {**before, "good": True})
    assert metadata_of(tmp_path, "u", STORED) == {"steps_completed": 3, "good": True}
    assert metadata_of(tmp_path, "other", {}) == {}


def test_metadata_may_all_be_taken_away(tmp_path):
    change_metadata(tmp_path, "u", STORED, lambda _before: {})
    assert metadata_of(tmp_path, "u", STORED) == {}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(EngineError, match=r"annotations\.json"):
        metadata_of(tmp_path, "u", STORED)


LABELS = ("first",)


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "home")


def change(folder, **values):
    return change_attributes(folder.path, lambda attributes: replace(attributes, **values))


def test_an_experiment_that_nobody_changed_is_as_it_was_submitted(folder):
    assert read_attributes(folder.path) == Attributes()


def test_what_was_changed_is_read_back_and_only_that_is_written(folder):
    change(folder, name="better", archived=True, max_slots=0)
    assert read_attributes(folder.path) == Attributes(name="better", archived=True, max_slots=0)
    change(folder, archived=False)
    assert "archived" not in (folder.path / "attributes.json").read_text()


def test_a_new_name_and_new_labels_lie_over_the_submitted_ones(folder):
    change(folder, name="better", labels=("x", "y"))
    assert (folder.header().name, folder.header().labels) == ("better", ("x", "y"))


def test_labels_are_added_to_those_of_the_config_once(folder):
    change_attributes(folder.path, lambda a: with_label(a, LABELS, "new"))
    changed = change_attributes(folder.path, lambda a: with_label(a, LABELS, "new"))
    assert changed.labels == ("first", "new")
    assert without_label(changed, LABELS, "first").labels == ("new",)
    assert without_label(Attributes(), LABELS, "first").labels == ()


def test_changes_that_come_at_the_same_time_are_all_kept(folder):
    def add(number):
        change_attributes(folder.path, lambda a: with_label(a, (), f"label-{number}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_attributes(folder.path).labels or ()) == {f"label-{number}" for number in range(20)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"priority": 0}, "priority must be between 1 and 99, not 0"),
        ({"priority": 100}, "priority must be between 1 and 99, not 100"),
        ({"weight": -1.0}, "weight must be 0 or more, not -1.0"),
        ({"weight": float("nan")}, "weight must be 0 or more, not nan"),
        ({"save_trial_best": -1}, "save_trial_best must be 0 or more, not -1"),
        ({"name": " "}, "the experiment name must not be empty"),
    ],
)
def test_values_that_break_a_rule_are_refused_and_nothing_changes(folder, values, said):
    with pytest.raises(ConfigError) as caught:
        change(folder, **values)
    assert str(caught.value) == said
    assert read_attributes(folder.path) == Attributes()


def test_a_damaged_file_is_named_and_not_taken_for_no_changes(folder):
    (folder.path / "attributes.json").write_text("{")
    with pytest.raises(EngineError, match=r"attributes\.json"):
        read_attributes(folder.path)


def test_a_config_nobody_steered_is_the_very_same_value(folder):
    config = config_of(folder)
    assert with_attributes(config, Attributes(name="other")) is config


def test_what_steers_a_running_experiment_lies_over_its_config(folder):
    config = config_of(folder)
    now = with_attributes(config, Attributes(max_slots=3, weight=2.5, priority=7, save_trial_best=0))
    assert (now.resources.max_slots, now.resources.weight, now.resources.priority) == (3, 2.5, 7)
    assert now.checkpoint_storage.save_trial_best == 0
    assert now.checkpoint_storage.save_trial_latest == config.checkpoint_storage.save_trial_latest
    assert with_attributes(now, Attributes(max_slots=0)).resources.max_slots is None
