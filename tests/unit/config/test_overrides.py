from __future__ import annotations

import pytest

from detbuild.config.overrides import apply, parse_override
from detbuild.config.parse import parse_config
from detbuild.config.problems import ConfigErrors

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
