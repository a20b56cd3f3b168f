"""Whatever is done to a good config, it is accepted or refused in lines that a person can use."""

from __future__ import annotations

import copy
import math
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.config.host import host_config
from detbuild.config.parse import config_from_mapping, parse_config, trace_config, values, written
from detbuild.config.sources import mapping_layer
from detbuild.config.yaml import ConfigErrors

GOOD = """\
description: digits
labels: [a, b]
data: {url: x, nested: {list: [1, 2.5, ~, true]}, secrets: {token: abc}}
entrypoint: model_def:MNistTrial
hyperparameters:
  global_batch_size: 32
  lr: {type: log, minval: -4, maxval: -1, base: 10, count: 3}
  optimizer:
    kind: {type: categorical, vals: [sgd, adam]}
    momentum: {type: double, minval: 0, maxval: 0.9}
  layers: {type: int, minval: 1, maxval: 5}
searcher: {name: single, metric: loss, smaller_is_better: true, max_length: {epochs: 3}}
resources: {slots_per_trial: 2, shm_size: 4 GiB, devices: ["/dev/a:/dev/b"]}
environment:
  image: {cpu: a/b:1, gpu: a/b:2}
  environment_variables: [A=1, B=two]
  ports: {web: 8080}
  registry_auth: {username: u, password: p}
bind_mounts: [{host_path: /data, container_path: data, read_only: true}]
checkpoint_storage: {type: shared_fs, host_path: /ckpt, storage_path: mine, save_trial_best: 2}
min_validation_period: {batches: 100}
profiling: {enabled: true, begin_on_batch: 1, end_after_batch: 9}
log_policies: [{name: mine, pattern: ".*x.*", action: cancel_retries}]
reproducibility: {experiment_seed: 7}
"""
HOST = """\
task_container_defaults:
  image: {cpu: corp/cpu:1, gpu: corp/cuda:1}
  environment_variables: [PROXY=http://proxy, A=host]
  registry_auth: {username: ci, password: hunter2, serveraddress: registry.corp}
  bind_mounts: [{host_path: /fast, container_path: scratch}]
  devices: ["/dev/fuse:/dev/fuse"]
  shm_size_bytes: 1073741824
  log_policies: [{name: NaN, pattern: nan, action: cancel_retries}]
  startup_hook: source /data/setup.sh
  network_mode: host
  slurm: {sbatch_args: [--x]}
checkpoint_storage: {type: shared_fs, host_path: /ckpt}
cpu_trials: 3
gpus: [0, "1:0"]
db: {user: x}
"""
LINE = re.compile(r"(?:c|config)\.yaml(:\d+:\d+)?: .+", re.DOTALL)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", "yes", "model_def.py:T", "-1", "../x", "/etc", "4x", "shared_fs", "int", "\0", "\ud800"]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(
        st.sampled_from(["type", "name", "val", "epochs", "x"]),
        st.integers() | st.text(max_size=5),
        max_size=3,
    ),
)


def slots(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, child in children for found in slots(child, (*path, key)))]


BITS = ["{", "]", "\t", ": ", "- ", "&a ", "*a", "<<: ", "!!x ", "1e400", "'"]
BASE = parse_config(GOOD)
RAW = yaml.safe_load(GOOD)
PATHS = [path for path in slots(RAW) if path]


def check(error: ConfigErrors, *, placed: bool, directory: str = "") -> None:
    assert error.lines
    for line in (line.removeprefix(directory) for line in error.lines):
        match = LINE.fullmatch(line)
        assert match, line
        assert match[1] or not placed, line
        assert len(line) < 200, line
        assert "\n" not in line
        assert "Traceback" not in line


def mutated_text(text: st.DataObject, good: str) -> str:
    start = text.draw(st.integers(0, len(good)))
    end = text.draw(st.integers(start, min(len(good), start + 20)))
    new = text.draw(st.text(max_size=6) | st.sampled_from(BITS))
    return good[:start] + new + good[end:]


@settings(max_examples=400, deadline=None)
@given(text=st.data())
def test_a_mutated_text_is_a_config_or_a_config_error(text: st.DataObject) -> None:
    try:
        parse_config(mutated_text(text, GOOD), source="c.yaml")
    except ConfigErrors as error:
        check(error, placed=True)


def mutated_value(raw: object, path: tuple[str | int, ...], value: object, action: str) -> object:
    mutated = copy.deepcopy(raw)
    parent = mutated
    for part in path[:-1]:
        parent = parent[part]
    if action == "remove":
        del parent[path[-1]]
    elif action == "rename" and isinstance(parent, dict):
        parent[str(path[-1]) + "x"] = parent.pop(path[-1])
    elif action == "add" and isinstance(parent, dict):
        parent["extra"] = value
    else:
        parent[path[-1]] = value
    return mutated


ACTIONS = st.sampled_from(["set", "add", "remove", "rename"])


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PATHS), value=ODD, action=ACTIONS)
def test_a_mutated_value_is_a_config_or_a_config_error(
    path: tuple[str | int, ...], value: object, action: str
) -> None:
    mutated = mutated_value(RAW, path, value, action)
    try:
        config = config_from_mapping(mutated, source="c.yaml")
    except ConfigErrors as error:
        check(error, placed=False)
    else:
        assert config_from_mapping(config.resolved()) == config


@settings(max_examples=200, deadline=None)
@given(text=st.data())
def test_a_mutated_config_of_the_host_is_one_or_a_config_error(
    text: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "config.yaml").write_text(mutated_text(text, HOST), encoding="utf-8", newline="")
    try:
        parse_config(GOOD, source="c.yaml", below=host_config(home).layers)
    except ConfigErrors as error:
        check(error, placed=True, directory=f"{home}/")


LOWER = {
    "labels": ["b", "c"],
    "hyperparameters": {"optimizer": {"kind": "sgd", "nesterov": True}, "lr": 0.1},
    "searcher": {"name": "single", "source_trial_id": 3, "max_length": {"batches": 4}},
    "environment": {"environment_variables": {"gpu": ["C=3"]}, "image": "a/b:3"},
    "bind_mounts": [{"host_path": "/other", "container_path": "data"}],
    "log_policies": [{"name": "mine", "pattern": "y"}, {"pattern": "z", "action": "exclude_node"}],
    "checkpoint_storage": {"type": "s3", "bucket": "b", "save_trial_best": 3},
    "resources": {"devices": ["/dev/c:/dev/b", "/dev/c:/dev/d"], "shm_size": 5},
}


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from([path for path in slots(LOWER) if path]),
    value=ODD,
    action=ACTIONS,
    steps=st.booleans(),
)
def test_every_value_of_a_config_over_a_mutated_template_has_a_source(
    path: tuple[str | int, ...],
    value: object,
    action: str,
    steps: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("config") / "c.yaml"
    file.write_text(GOOD.replace("max_length: {epochs: 3}", "max_steps: 3") if steps else GOOD)
    try:
        lower = mapping_layer(mutated_value(LOWER, path, value, action), "config.yaml")
        traced = trace_config(file, (), [lower])
    except ConfigErrors as error:
        check(error, placed=False, directory=f"{file.parent}/")
        return
    found = list(values(traced, traced.config.masked()))
    own, words = f"{file}:", {"config.yaml", "default", "default of Determined 0.12", "chosen at submission"}
    assert {one.source for one in found if not one.source.startswith(own)} <= words
    assert parse_config(written(found)).masked() == traced.config.masked()


LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
)
DATA = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(data=DATA, restarts=st.integers(0, 2**63 - 1), labels=st.lists(st.text(max_size=5), unique=True))
def test_what_was_written_is_what_is_read(data: dict[str, object], restarts: int, labels: list[str]) -> None:
    own = {"data": data, "max_restarts": restarts, "labels": [repr(label) for label in labels]}
    resolved = {**BASE.resolved(), **own}
    again = parse_config(dump(resolved)).resolved()
    assert again == resolved


def dump(value: object) -> str:
    """Flow style with every letter escaped, so that nothing rests on what needs no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dump(key)}: {dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, float):
        assert math.isfinite(value)
        return repr(value)
    return "null" if value is None else str(value).lower()
