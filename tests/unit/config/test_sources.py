"""The table of Determined's merge rules, one row a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.sources import Origin, apply, merge, parse_override, parted, template_layers, text_layer
from detbuild.config.yaml import ConfigErrors
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


ENV = "environment_variables"
ROWS = {
    "maps": (
        {"data": {"a": 1, "b": {"c": 1}}},
        {"data": {"a": 2, "b": {"d": 2}}},
        {"data": {"a": 1, "b": {"d": 2, "c": 1}}},
    ),
    "lists": ({"entrypoint": ["a"]}, {"entrypoint": ["b", "c"]}, {"entrypoint": ["a"]}),
    "labels": ({"labels": ["a", "b"]}, {"labels": ["b", "c"]}, {"labels": ["a", "b", "c"]}),
    "bind mounts": (
        {"bind_mounts": [{"host_path": "/h", "container_path": "x"}]},
        {
            "bind_mounts": [
                {"host_path": "/l", "container_path": "./x"},
                {"host_path": "/l", "container_path": "y"},
            ]
        },
        {
            "bind_mounts": [
                {"host_path": "/h", "container_path": "x"},
                {"host_path": "/l", "container_path": "y"},
            ]
        },
    ),
    "devices": (
        {"resources": {"devices": ["/a:/x"]}},
        {"resources": {"devices": [{"host_path": "/b", "container_path": "/x"}]}},
        {"resources": {"devices": [{"host_path": "/a", "container_path": "/x"}]}},
    ),
    "proxy ports": (
        {"environment": {"proxy_ports": [{"proxy_port": 1, "proxy_tcp": True}]}},
        {"environment": {"proxy_ports": [{"proxy_port": 1}, {"proxy_port": 2}]}},
        {"environment": {"proxy_ports": [{"proxy_port": 1, "proxy_tcp": True}, {"proxy_port": 2}]}},
    ),
    "variables": (
        {"environment": {ENV: ["A=1"]}},
        {"environment": {ENV: {"gpu": ["B=2"]}}},
        {"environment": {ENV: {"cpu": ["A=1"], "cuda": ["B=2", "A=1"], "rocm": ["A=1"]}}},
    ),
    "log policies": (
        {"log_policies": [{"name": "a", "pattern": "1"}, {"pattern": "p", "action": "cancel_retries"}]},
        {
            "log_policies": [
                {"name": "a", "pattern": "2"},
                {"pattern": "p", "action": "cancel_retries"},
                {"name": "b"},
            ]
        },
        {
            "log_policies": [
                {"name": "a", "pattern": "1"},
                {"pattern": "p", "action": "cancel_retries"},
                {"name": "b"},
            ]
        },
    ),
    "the same searcher": (
        {"searcher": {"name": "random", "max_length": {"epochs": 1}}},
        {"searcher": {"name": "random", "max_trials": 3, "max_length": {"batches": 9}}},
        {"searcher": {"name": "random", "max_trials": 3, "max_length": {"epochs": 1}}},
    ),
    "another searcher": (
        {"searcher": {"name": "single"}},
        {"searcher": {"name": "random", "max_trials": 3, "metric": "loss"}},
        {"searcher": {"metric": "loss", "name": "single"}},
    ),
    "another storage": (
        {"checkpoint_storage": {"type": "s3", "bucket": "b"}},
        {"checkpoint_storage": {"type": "gcs", "prefix": "p", "save_trial_best": 4}},
        {"checkpoint_storage": {"save_trial_best": 4, "type": "s3", "bucket": "b"}},
    ),
    "azure's credentials": (
        {"checkpoint_storage": {"type": "azure", "account_url": "u"}},
        {"checkpoint_storage": {"type": "azure", "container": "c", "account_url": "v", "credential": "s"}},
        {"checkpoint_storage": {"type": "azure", "container": "c", "account_url": "u"}},
    ),
    "a registry's credentials": (
        {"environment": {"registry_auth": {"username": "me", "password": "mine"}}},
        {"environment": {"registry_auth": {"serveraddress": "registry.corp", "identitytoken": "t"}}},
        {"environment": {"registry_auth": {"username": "me", "password": "mine"}}},
    ),
    "hyperparameters": (
        {"hyperparameters": {"a": {"type": "int", "minval": 1}, "n": {"x": 1}}},
        {"hyperparameters": {"a": {"type": "int", "maxval": 2}, "n": {"y": 2}}},
        {"hyperparameters": {"a": {"type": "int", "minval": 1}, "n": {"y": 2, "x": 1}}},
    ),
    "pods": (
        {"environment": {"pod_spec": {"spec": {"containers": [{"name": "a", "x": 1}]}}}},
        {"environment": {"pod_spec": {"spec": {"containers": [{"name": "a", "y": 2}, {"name": "b"}]}}}},
        {
            "environment": {
                "pod_spec": {"spec": {"containers": [{"name": "a", "y": 2, "x": 1}, {"name": "b"}]}}
            }
        },
    ),
    "slurm": (
        {"slurm": {"sbatch_args": ["u"]}},
        {"slurm": {"sbatch_args": ["c"]}},
        {"slurm": {"sbatch_args": ["c", "u"]}},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_kind_of_field_merges_by_its_rule(row: str) -> None:
    higher, lower, expected = ROWS[row]
    assert merge(parted(higher, 0), parted(lower, 1)).plain() == expected


def test_a_merged_value_knows_its_source() -> None:
    both = merge(parted({"data": {"a": 1}}, 0), parted({"data": {"b": [2]}}, 1))
    assert both.trace(("data", "a")) == Origin(0, ("data", "a"))
    assert both.trace(("data", "b", 0)) == Origin(1, ("data", "b", 0))


def test_a_slip_in_a_lower_source_is_refused_where_it_stands_even_when_it_is_hidden() -> None:
    below = text_layer("max_restarts: x\nentrypoint: a:B\n", "t.yaml")
    text = "searcher: {name: single, metric: l, max_length: 1}\nmax_restarts: 1\n"
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, source="c.yaml", below=[below])
    assert [line.split(": ")[:2] for line in caught.value.lines] == [["t.yaml:1:15", "max_restarts"]]


def test_a_lower_source_fills_what_the_higher_leaves_out() -> None:
    below = text_layer("entrypoint: a:B\nsearcher: {metric: l, max_length: 7}\n", "t.yaml")
    config = parse_config("searcher: {name: single}\n", below=[below])
    assert (config.entrypoint.value, config.searcher.metric) == ("a:B", "l")


BASE = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a.b.c=1", ("a", "b", "c"), 1),
        ("name=x=y", ("name",), "x=y"),
        ("lr=1e-4", ("lr",), 1e-4),
        ("a=NO", ("a",), "NO"),
        ("a=", ("a",), None),
        ("a='1'", ("a",), "1"),
        ('a="x, y"', ("a",), "x, y"),
        ("a=1,2e1,x, true", ("a",), [1, 20.0, "x", True]),
        ("a=[1, {b: c}]", ("a",), [1, {"b": "c"}]),
        ("a={b: {c: 1}}", ("a",), {"b": {"c": 1}}),
        ("bind_mounts={host_path: /d}", ("bind_mounts",), [{"host_path": "/d"}]),
        ("bind_mounts=[]", ("bind_mounts",), []),
        ("a=foo: bar", ("a",), "foo: bar"),
    ],
)
def test_an_override_is_a_path_and_a_value(text: str, path: tuple[str, ...], value: object) -> None:
    override = parse_override(text)
    assert (override.path, override.value) == (path, value)


def test_overrides_merge_into_maps_make_missing_parents_and_the_later_wins() -> None:
    raw: dict[str, object] = {"a": {"x": 1, "y": {"z": 1}}, "b": None, "c": [1]}
    texts = ["a={x: 2, y: {w: 3}}", "b.k=1", "c=2,3", "d.e.f=4", "a.x=5"]
    assert apply(raw, map(parse_override, texts)) == {
        "a": {"x": 5, "y": {"z": 1, "w": 3}},
        "b": {"k": 1},
        "c": [2, 3],
        "d": {"e": {"f": 4}},
    }
    assert raw == {"a": {"x": 1, "y": {"z": 1}}, "b": None, "c": [1]}


def test_an_override_of_null_removes_the_field() -> None:
    config = parse_config(BASE + "max_restarts: 2\n", overrides=["max_restarts="])
    assert config.max_restarts == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name", "--config name: must be key=value; write `--config searcher.max_length.epochs=3`"),
        ("=1", "--config =1: must be key=value; write `--config searcher.max_length.epochs=3`"),
        ("a..b=1", "--config a..b=1: must be key=value; write `--config searcher.max_length.epochs=3`"),
        ("entrypoint.x=1", "--config entrypoint.x=1: entrypoint is 'a:B', not a map"),
        ("max_restarts=-1", "--config max_restarts=-1: max_restarts: must be at least 0, not -1"),
        ("searcher.metrc=x", "--config searcher.metrc=x: searcher.metrc: unknown field of `searcher`"),
        ("sercher.metric=x", "--config sercher.metric=x: sercher: unknown field of the"),
        ("labels=[a", "--config labels=[a: value:"),
        ("hyperparameters.lr=.nan", "--config hyperparameters.lr=.nan: hyperparameters.lr: must be"),
        ("max_restarts=" + "9" * 5000, "--config max_restarts=9999"),
    ],
)
def test_errors_name_the_override(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(BASE, overrides=[override])
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"


def test_the_last_named_template_lies_above_the_first(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "one.yaml").write_text("max_restarts: 1\ndebug: true\n")
    two = tmp_path / "two.yaml"
    two.write_text("max_restarts: 2\n")
    config = parse_config(MINIMAL, below=template_layers(tmp_path, ["one", str(two)]))
    assert (config.max_restarts, config.debug) == (2, True)


def test_a_template_that_is_not_there_is_asked_about_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "gpu.yaml").write_text("debug: true\n")
    with pytest.raises(ConfigError) as caught:
        template_layers(tmp_path, ["gpus"])
    assert caught.value.hint == "did you mean `gpu`?"


REST = "entrypoint: model_def:T\nsearcher: {metric: loss}\n"

SINGLE = "searcher: {name: single, max_length: 3}\n"

LATER = {
    "a project": ("workspace: a\n" + SINGLE, "project: b\n"),
    "a length": ("searcher: {name: single}\nentrypoint: a:B\n", "searcher: {max_length: 3}\n"),
    "the points of a grid": (
        (
            "hyperparameters: {x: {type: int, minval: 1, maxval: 2}}\n"
            "searcher: {name: grid, metric: loss, max_length: 3}\n"
        ),
        "searcher: {name: random, max_trials: 2, max_length: 3}\n",
    ),
    "a top rung": (
        "searcher: {name: adaptive_asha, metric: loss, max_trials: 3, max_time: 4}\n",
        "searcher: {time_metric: batches}\n",
    ),
    "a budget": (
        "searcher: {name: adaptive, metric: loss, max_length: 3, budget: 2}\n",
        "searcher: {budget: 9}\n",
    ),
    "a unit": (
        "searcher: {name: adaptive, metric: loss, max_length: {epochs: 3}, budget: {batches: 9}}\n",
        "searcher: {budget: {epochs: 9}}\n",
    ),
    "a kind of storage": ("checkpoint_storage: {bucket: b}\n" + SINGLE, "checkpoint_storage: {type: s3}\n"),
    "a bucket": ("checkpoint_storage: {type: s3}\n" + SINGLE, "checkpoint_storage: {bucket: b}\n"),
}


@pytest.mark.parametrize("row", LATER)
def test_what_one_source_lacks_a_higher_one_may_bring(row: str) -> None:
    lower, higher = LATER[row]
    layers = [text_layer(lower, "lower.yaml"), text_layer(REST, "rest.yaml")]
    with pytest.raises(ConfigErrors):
        parse_config("max_restarts: 1\n", below=layers)
    parse_config(higher, below=layers)
