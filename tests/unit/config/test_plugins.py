"""Searchers and storages of packages are members of the config like our own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.parse import config_from_mapping
from detbuild.config.schema import experiment_schema, plugins
from detbuild.config.secrets import (
    MASK,
    known_secrets,
    mask,
    masked_for_sharing,
    text_holds_secrets,
    without_host_secrets,
)
from detbuild.config.section import OpenUnion
from detbuild.config.yaml import ConfigErrors
from determined._contract import plugins as entry_points
from tests.plugins import write_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEARCHER = """
    from typing import Literal
    from detbuild.config.searcher import SearcherConfig
    from detbuild.config.section import Positive, Section

    class Deep(Section):
        size: Positive = 3

    class Config(SearcherConfig):
        name: Literal["{name}"] = "{name}"
        '''Tries things.'''
        tries: Positive
        '''How many.'''
        deep: Deep = Deep.model_construct()
        '''More of it.'''

    def search(config, trials):
        raise AssertionError
"""
STORAGE = """
    from typing import Annotated, Literal
    from pydantic import Field
    from detbuild.config.secrets import SECRET
    from detbuild.config.section import Section
    from detbuild.config.storage import StorageConfig

    class Login(Section):
        user: str
        word: Annotated[str, SECRET]

    class Config(StorageConfig):
        type: Literal["{name}"] = "{name}"
        '''A shelf.'''
        bucket: Annotated[str, SECRET] = Field(repr=False)
        '''Secret here, and shown for S3.'''
        login: Login
        shelf: str = "top"

    def open(config):
        raise AssertionError
"""
CANARY = "canary-7f3a"
SHELVES = """
entrypoint: a:B
searcher: {name: single, metric: loss, max_length: {batches: 8}}
checkpoint_storage:
  type: NAME
  bucket: canary-7f3a-bucket
  login: {user: me, word: canary-7f3a-word}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    yield folder
    for union in OpenUnion.by_group.values():
        union.plugins._loaded.clear()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of this test alone: what is loaded stays loaded."""
    return f"p{abs(hash(request.node.nodeid)) % 10**8}"


def config(name: str, **more: object) -> ExperimentConfig:
    return config_from_mapping(
        {"entrypoint": ["x"], "searcher": {"name": name, "metric": "loss", **more}}, source="c.yaml"
    )


def shelves(name: str, **login: object) -> ExperimentConfig:
    """Parsed from a mapping: the schema that texts are compared with has no packages."""
    raw = yaml.safe_load(SHELVES.replace("NAME", name))
    raw["checkpoint_storage"]["login"] |= login
    if name == "gcs":
        del raw["checkpoint_storage"]["login"]
    return config_from_mapping(raw)


def refused(name: str, **more: object) -> str:
    with pytest.raises(ConfigErrors) as caught:
        config(name, **more)
    return caught.value.lines[0]


def test_a_searcher_of_a_package_is_parsed_and_written_as_our_own(site: Path, name: str) -> None:
    write_package(site, "detbuild.searchers", name, SEARCHER.format(name=name))
    found = config(name, tries=2)
    resolved = found.resolved()
    assert resolved["searcher"] == {
        "metric": "loss",
        "smaller_is_better": True,
        "source_trial_id": None,
        "source_checkpoint_uuid": None,
        "max_length": None,
        "name": name,
        "tries": 2,
        "deep": {"size": 3},
    }
    assert config_from_mapping(json.loads(json.dumps(resolved))) == found


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"tries": 0}, "searcher.tries: must be at least 1, not 0"),
        ({}, "searcher.tries: is missing; add `tries:`"),
        ({"tries": 1, "triez": 1}, "searcher.triez: unknown field of `searcher`; did you mean `tries`?"),
        ({"tries": 1, "deep": {"size": "x"}}, "searcher.deep.size: must be a whole number, not 'x'"),
        ({"tries": 1, "deep": {"siz": 1}}, "unknown field of `searcher.deep`; did you mean `size`?"),
    ],
)
def test_a_wrong_field_of_a_package_is_told_as_one_of_ours(
    site: Path, name: str, given: dict[str, object], line: str
) -> None:
    write_package(site, "detbuild.searchers", name, SEARCHER.format(name=name))
    assert line in refused(name, **given)


def test_an_unknown_name_tells_the_nearest_and_where_others_come_from(site: Path, name: str) -> None:
    others = "packages add others (`detbuild.searchers`)"
    assert refused("sngle").endswith(f"unknown name 'sngle'; did you mean `single`? {others}")
    assert refused("zzz").endswith(f"unknown name 'zzz'; one of single, random, grid, ...; {others}")


def test_the_nearest_name_may_be_that_of_a_package(site: Path, name: str) -> None:
    write_package(site, "detbuild.searchers", name, SEARCHER.format(name=name))
    assert f"did you mean `{name}`?" in refused(f"{name}x")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import missing_anywhere", "ModuleNotFoundError: No module named 'missing_anywhere'"),
        ("Config = 1", "its `Config` does not derive from detbuild.config.searcher.SearcherConfig"),
        (SEARCHER.format(name="other"), 'its `Config` has no field `name: Literal["NAME"] = "NAME"`'),
        (f"{SEARCHER}\n    del search\n", "it has no function `search`"),
        (f"{SEARCHER}\n    class Config(Config):\n        odd: 'Nowhere'\n", "PydanticUndefinedAnnotation"),
    ],
)
def test_a_package_that_is_broken_is_named(site: Path, name: str, source: str, why: str) -> None:
    package = write_package(site, "detbuild.searchers", name, source.replace("{name}", name))
    line = refused(name, tries=1)
    expected = f"searcher.name: {package} cannot be used: {why.replace('NAME', name)}"
    assert expected[:110] in line
    assert [plugin.name for plugin in plugins() if plugin.error] == [name]
    assert config("single")  # others stay usable


def test_a_name_that_is_built_in_cannot_be_overridden(site: Path) -> None:
    package = write_package(site, "detbuild.searchers", "random", "raise AssertionError('loaded')")
    assert config("random", max_trials=2).searcher.name == "random"
    (found,) = plugins()
    assert found.problem == f"{package} cannot be used: the name is built in and cannot be overridden"


def test_built_in_names_read_no_entry_points(site: Path) -> None:
    write_package(site, "detbuild.searchers", "unused", "raise AssertionError('loaded')")
    before = entry_points._entry_points.cache_info()
    found = shelves("gcs")
    mask(found.resolved(), ExperimentConfig)
    assert entry_points._entry_points.cache_info() == before


def test_the_schema_has_the_members_of_packages(site: Path, name: str) -> None:
    write_package(site, "detbuild.searchers", name, SEARCHER.format(name=name))
    schema = experiment_schema()
    chooser = schema["properties"]["searcher"]["properties"]["name"]
    assert name in chooser["enum"]
    assert f"- `{name}`: Tries things." in chooser["description"]
    whole = {"entrypoint": "python3 a.py", "searcher": {"name": name, "metric": "loss", "tries": 1}}
    jsonschema.validate(whole, schema)
    whole["searcher"] = {"name": name, "metric": "loss", "tries": 0}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema)


def test_secrets_of_a_package_are_hidden_as_our_own(site: Path, name: str) -> None:
    write_package(site, "detbuild.storages", name, STORAGE.format(name=name))
    text = SHELVES.replace("NAME", name)
    found = shelves(name)
    values = found.resolved()
    assert CANARY not in repr(found.checkpoint_storage)
    for shown in (found.masked(), mask(values, ExperimentConfig), masked_for_sharing(values)):
        assert CANARY not in json.dumps(shown)
    assert found.masked()["checkpoint_storage"]["shelf"] == "top"
    assert found.masked()["checkpoint_storage"]["login"] == {"user": "me", "word": MASK}
    known = known_secrets(values, ExperimentConfig)
    assert {f"{CANARY}-bucket", f"{CANARY}-word"} <= {*known.values}
    assert text_holds_secrets(text, ExperimentConfig)


def test_secrets_of_a_package_do_not_reach_a_run(site: Path, name: str) -> None:
    write_package(site, "detbuild.storages", name, STORAGE.format(name=name))
    values = shelves(name).resolved()
    visible = without_host_secrets(values, ExperimentConfig)
    assert CANARY not in json.dumps(visible)
    assert visible["checkpoint_storage"]["login"] == {"user": "me", "word": None}


def test_everything_is_secret_that_a_package_added_which_is_gone(name: str) -> None:
    values = {
        "checkpoint_storage": {
            "type": name,
            "save_trial_best": 2,
            "token": CANARY,
            "deep": {"more": [f"{CANARY}-2"]},
        }
    }
    shown = mask(values, ExperimentConfig)["checkpoint_storage"]
    assert shown == {"type": name, "save_trial_best": 2, "token": MASK, "deep": MASK}
    assert {CANARY, f"{CANARY}-2"} <= {*known_secrets(values, ExperimentConfig).values}
    assert CANARY not in json.dumps(without_host_secrets(values, ExperimentConfig))


def test_a_wrong_secret_of_a_package_is_not_quoted(site: Path, name: str) -> None:
    write_package(site, "detbuild.storages", name, STORAGE.format(name=name))
    with pytest.raises(ConfigErrors) as caught:
        shelves(name, word=[CANARY])
    assert CANARY not in str(caught.value)
