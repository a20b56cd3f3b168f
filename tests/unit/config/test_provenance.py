from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config.layers import text_layer
from detbuild.config.parse import trace_config
from detbuild.config.provenance import DEFAULT, values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BASE = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: 7}\n"


def sources(
    tmp_path: Path, text: str, overrides: Sequence[str] = (), below: Sequence[str] = ()
) -> dict[str, str]:
    """The values of one section, `path: source`, without the directory."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    layers = [text_layer(layer, f"{number}.yaml") for number, layer in enumerate(below)]
    traced = trace_config(path, overrides, layers)
    found = values(traced, traced.config.masked())
    return {".".join(map(str, v.path)): v.source.removeprefix(f"{tmp_path}/") for v in found}


@pytest.mark.parametrize(
    ("text", "path", "source"),
    [
        ("hyperparameters:\n  lr: 0.1\n", "hyperparameters.lr.val", "c.yaml:4"),
        ("hyperparameters:\n  lr: [1,\n    2]\n", "hyperparameters.lr.val.1", "c.yaml:5"),
        (
            "hyperparameters:\n  n:\n    lr: {type: int, minval: 1,\n      maxval: 2}\n",
            "hyperparameters.n.lr.count",
            DEFAULT,
        ),
        ("", "searcher.max_length.batches", "c.yaml:2"),
        ("environment:\n  image: a/b:1\n", "environment.image.rocm", "c.yaml:4"),
        ("environment:\n  image:\n    gpu: a/b:1\n", "environment.image.cuda", "c.yaml:5"),
        ("environment:\n  image:\n    gpu: a/b:1\n", "environment.image.cpu", DEFAULT),
        (
            "environment:\n  environment_variables:\n  - A=1\n  - B=2\n",
            "environment.environment_variables.cpu.1",
            "c.yaml:6",
        ),
        ("resources:\n  devices:\n  - /a:/b\n", "resources.devices.0.mode", "c.yaml:5"),
        ("labels:\n- a\n- a\n- b\n", "labels.1", "c.yaml:6"),
        ("log_policies:\n- name: ECC Error\n- {name: mine, pattern: x}\n", "log_policies.0.pattern", DEFAULT),
        ("log_policies:\n- name: ECC Error\n- {name: mine, pattern: x}\n", "log_policies.1.name", "c.yaml:4"),
        (
            "log_policies:\n- name: ECC Error\n- {name: mine, pattern: x}\n",
            "log_policies.2.pattern",
            "c.yaml:5",
        ),
        ("log_policies: []\n", "log_policies.0.name", DEFAULT),
        ("data: {}\n", "data", "c.yaml:3"),
        ("", "data", DEFAULT),
        ("reproducibility:\n  experiment_seed: 0\n", "reproducibility.experiment_seed", "c.yaml:4"),
        ("", "reproducibility.experiment_seed", "drawn at submission"),
        ("", "resources.priority", DEFAULT),
    ],
)
def test_a_value_is_traced_to_what_was_written(tmp_path: Path, text: str, path: str, source: str) -> None:
    assert sources(tmp_path, BASE + text)[path] == source


def test_an_option_has_what_it_brought_and_no_more(tmp_path: Path) -> None:
    found = sources(tmp_path, BASE, ["searcher={name: random, max_trials: 3}", "data.x=[1,2]"])
    assert found["searcher.name"] == found["searcher.max_trials"] == "--config searcher"
    assert (found["searcher.metric"], found["data.x.1"]) == ("c.yaml:2", "--config data.x")


def test_steps_are_traced_to_the_old_words_and_defaults_of_that_time_are_named(tmp_path: Path) -> None:
    text = "entrypoint: a:B\nsearcher:\n  name: random\n  metric: l\n  max_trials: 2\n  max_steps: 3\n"
    found = sources(tmp_path, text)
    assert found["searcher.max_length.batches"] == "c.yaml:6"
    assert found["searcher.max_concurrent_trials"] == "default of Determined 0.12"


def test_values_of_several_files_are_told_apart(tmp_path: Path) -> None:
    below = ["data: {x: 1}\nlabels: [t]\n", "data:\n  x: 0\n  y: 2\n"]
    found = sources(tmp_path, BASE + "labels: [a]\n", (), below)
    assert [found[path] for path in ("data.x", "data.y", "labels.0", "labels.1")] == [
        "0.yaml:1",
        "1.yaml:3",
        "c.yaml:3",
        "0.yaml:2",
    ]
