"""The JSON Schema accepts a config if and only if the parser does, but for the rules that it lists."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import regress
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from detbuild.config.legacy_syntax import RENAMED
from detbuild.config.parse import config_from_mapping
from detbuild.config.schema import PARSER_ONLY_RULES
from detbuild.config.section import Section
from detbuild.config.yaml import ConfigErrors, read_document
from tests.unit.config.agreement import SCHEMA, TOLD, VALIDATOR, compare

ROOT = Path(__file__).parents[3]

SEEDS = [
    """
name: digits
description: all of it
labels: [a, b]
workspace: w
project: p
data: {url: x, nested: {list: [1, 2.5, ~, true]}, secrets: {token: abc}}
entrypoint: model_def:MNistTrial
hyperparameters:
  global_batch_size: 32
  lr: {type: log, minval: -4, maxval: -1, base: 10, count: 3}
  optimizer: {kind: {type: categorical, vals: [sgd, ~]}, momentum: {type: double, minval: 0, maxval: 0.9}}
  layers: {type: int, minval: 1, maxval: 5}
  none: ~
  fixed: {type: const, val: [1, {a: 2}]}
searcher: {name: adaptive_asha, metric: loss, max_length: {epochs: 3}, max_trials: 9, bracket_rungs: [2, 3]}
resources:
  slots_per_trial: 2
  max_slots: 8
  shm_size: 4 GiB
  weight: 2
  priority: 50
  devices: ["/dev/a:/dev/b", "/dev/a:/dev/c:rw", {host_path: /dev/x, container_path: /dev/y, mode: m}]
environment:
  image: {cpu: a/b:1, gpu: a/b:2}
  environment_variables: {cpu: [A=1], cuda: [B=two=x]}
  ports: {web: 8080}
  proxy_ports: [{proxy_port: 80, proxy_tcp: true}]
  registry_auth: {username: u, password: p}
  add_capabilities: [SYS_PTRACE]
  pod_spec: {spec: {a: ~}}
bind_mounts: [{host_path: /data, container_path: data, read_only: true}]
checkpoint_storage: {type: shared_fs, host_path: /ckpt, storage_path: mine, save_trial_best: 2}
min_validation_period: {batches: 100}
min_checkpoint_period: {records: 7}
profiling: {enabled: true, begin_on_batch: 1, end_after_batch: 9}
optimizations: {mixed_precision: O1, aggregation_frequency: 2}
log_policies: [{name: x, pattern: ".*", action: {type: cancel_retries}}, {pattern: y, action: exclude_node}]
reproducibility: {experiment_seed: 7}
retention_policy: {log_retention_days: -1}
integrations: {pachyderm: {x: 1}, webhooks: {webhook_id: [1], webhook_name: [a], exclude: true}}
preemption_timeout: 60
slurm: {slots_per_node: 1, gpu_type: v100, sbatch_args: [-x]}
pbs: {slots_per_node: 1, pbsbatch_args: [-x]}
""",
    """
entrypoint: [python3, train.py]
searcher: {name: single, metric: loss, source_trial_id: 3}
environment: {image: "ubuntu:22.04", environment_variables: [A=1, B=]}
checkpoint_storage: {type: azure, container: c, account_url: u, credential: x}
""",
    """
entrypoint: python3 train.py
version: 0
searcher: {name: random, metric: loss, max_trials: 3, source_checkpoint_uuid: a1}
checkpoint_storage: {type: s3, bucket: b, prefix: x/y}
environment: {image: {cuda: "nvidia/cuda:12", rocm: "rocm/pytorch"}}
""",
    """
entrypoint: model_def:T
batches_per_step: 10
searcher: {name: adaptive, metric: loss, target_trial_steps: 10, step_budget: 100, mode: aggressive}
min_validation_period: 3
min_checkpoint_period: {epochs: 1}
checkpoint_storage: {type: gcs, bucket: b}
environment: {image: {cpu: a, gpu: b}}
""",
    """
entrypoint: ":T"
searcher:
  name: pbt
  metric: loss
  population_size: 4
  num_rounds: 3
  steps_per_round: 10
  replace_function: {truncate_fraction: 0.3}
  explore_function: {resample_probability: 0.1, perturb_factor: 0.2}
checkpoint_storage: {type: directory, container_path: /ckpt}
""",
    """
entrypoint: a.b-c:T.U
searcher: {name: sync_halving, metric: loss, num_rungs: 3, budget: {batches: 9}, max_length: 100, divisor: 3}
""",
    """
entrypoint: a:B
searcher: {name: async_halving, metric: loss, num_rungs: 3, max_trials: 5, max_time: 9, time_metric: batches}
""",
    """
entrypoint: a:B
searcher: {name: custom, metric: loss, unit: batches, hook: "search:My", options: {a: [~]}, max_trials: 5}
""",
    """
entrypoint: a:B
hyperparameters: {x: {type: double, minval: 0, maxval: 1, count: 2}}
searcher: {name: grid, metric: loss, max_length: {batches: 10}, max_concurrent_trials: 0}
""",
    """
entrypoint: a:B
searcher: {name: optuna, metric: loss, max_length: {batches: 10}, max_trials: 3, sampler: cmaes}
""",
    """
entrypoint: a:B
searcher: {name: adaptive_simple, metric: loss, max_steps: 10, max_trials: 3}
""",
]
RAWS = [read_document(text, "seed").plain() for text in SEEDS]
Place = tuple[str | int, ...]


def places(value: object, path: Place = ()) -> list[Place]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


def at(value: object, path: Place) -> object:
    for part in path:
        value = value[part]  # type: ignore[index]
    return value


PARTS = [at(raw, path) for raw in RAWS for path in places(raw)]
NAMES = sorted(
    {name for section in Section.tagged.values() for name in section.model_fields}
    | set(re.findall(r"[a-z_]{3,}(?=:)", "".join(SEEDS)))
)
NUMBERS = [
    *(-1, 0, 1, 2, 99, 100, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63),
    *(0.0, 1.0, 1e3, 1.5, 0.5, 1e30, -0.5, 2.0**63),
]
TEXTS = [
    *("", " ", "x", "null", "é", "a\n", "x" * 600, "\N{FULLWIDTH COLON}"),
    *(
        "model_def:T",
        "model_def.py:T",
        "model_def.T",
        "model_def",
        "a : B",
        " a:B\n",
        "a:B\n\n",
        "a:b c",
        "é:Ü",
        "\N{LEFT DOUBLE QUOTATION MARK}a:B\N{RIGHT DOUBLE QUOTATION MARK}",
        "模块:类",
    ),
    *(
        "train.py",
        "./train.py",
        "a/b:C",
        "FOO=1 a:B",
        "a::B",
        ":",
        "a:",
        "http://x",
        "a:B()",
        "x.y.py:T",
        "1:2",
    ),
    *(
        "/",
        "//",
        "/./",
        "/data",
        "/etc",
        "//etc/.",
        "/etc/x",
        "/etcx",
        "/proc",
        "/proc//1",
        "/procx",
        "/a/../etc",
    ),
    *(
        "/proc/../data",
        "/var/lib/./docker/x",
        "/var/run/docker.sock",
        "/docker.sock/",
        "docker.sock",
        "/..",
        "..",
    ),
    *(
        ".",
        "./",
        "./a",
        "a/..",
        "a/../b",
        "..a",
        "/opt/detbuild/x",
        "/run/detbuild",
        "/etc\n",
        "/ckpt/x",
        "/ckptx",
    ),
    *(
        "4g",
        "4 GiB",
        "1.5kb",
        "0",
        "4  g",
        "4x",
        "999999p",
        " 4g ",
        "64\n",
        "\N{KELVIN SIGN}",
        "4\N{KELVIN SIGN}",
    ),
    *("/a:/b", "/a:/b:rw", "/a:/b:rr", "/a:b", "/a:/b:", "/a:/b:r:w", "rwm", "wr", "rr", "mrwx", "r\n"),
    *(
        "ubuntu",
        "Ubuntu",
        "a/b:1",
        "host:5000/a",
        "a@sha256:" + "0" * 64,
        "sha256:" + "0" * 64,
        "a:b:c",
        "a\n",
    ),
    *(
        "A=1",
        "A=",
        "=1",
        "A",
        "1A=2",
        "A=\n",
        "A B=1",
        "SYS_PTRACE",
        "sys-ptrace",
        "search:My",
        "a.b:C",
        "s:M\n",
    ),
    *(
        "a" * 128,
        "a" * 129,
        "-a",
        "[",
        ".*",
        "yes",
        "O1",
        "o1",
        "best",
        "cancel_retries",
        "shared_fs",
        "hdfs",
    ),
    *(
        "int",
        "const",
        "single",
        "grid",
        "standard",
        "tpe",
        "batches",
        "gpu",
        "slots_per_trial",
        "\x85a",
        "\xa0",
    ),
]
KNOWN: dict[str | int, list[object]] = {}  # by name of a field, the values that the seeds have for it
for seed in RAWS:
    for place in places(seed)[1:]:
        if at(seed, place) not in KNOWN.setdefault(place[-1], []):
            KNOWN[place[-1]].append(at(seed, place))
SECTIONS = [set(section.model_fields) | {"gpu", *RENAMED} for section in Section.tagged.values()]


VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from([None, True, False, [], {}, [None], {"type": None}, {"type": "int"}, {"val": 1}]),
    st.sampled_from(PARTS),
    st.builds(lambda name, value: {name: value}, st.sampled_from(NAMES), st.sampled_from(NUMBERS)),
    st.builds(
        lambda name, value: {"type": "const", "val": None, name: value},
        st.sampled_from(NAMES),
        st.sampled_from(TEXTS),
    ),
    st.lists(st.sampled_from(TEXTS), max_size=2),
    st.text(max_size=8),
    st.text(alphabet="/.:a=_B \n", max_size=10),
)
OWN_ENDS = ["", " ", "\n", "x", "1", "/", "/.", "/..", ":", "=", "é"]
ACTIONS = st.sampled_from(["set", "set", "set", "add", "remove", "rename", "swap", "none", "respell"])


@st.composite
def configs(draw: st.DrawFn) -> dict[str, object]:
    """A good config, with up to four things done to it."""
    raw = copy.deepcopy(draw(st.sampled_from(RAWS)))
    assert isinstance(raw, dict)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2, 2, 3]))):
        mutate(draw, raw)
    return raw


def mutate(draw: st.DrawFn, raw: dict[str, object]) -> None:
    path = draw(st.sampled_from(places(raw)))
    parent, action = (at(raw, path[:-1]), draw(ACTIONS)) if path else (raw, "add")
    own = at(raw, path)
    if action == "add" and isinstance(own, dict):
        own[draw(st.sampled_from(NAMES))] = copy.deepcopy(draw(VALUES))
    elif action == "add" and isinstance(own, list):
        own.append(copy.deepcopy(draw(VALUES)))
    elif action == "remove":
        del parent[path[-1]]  # type: ignore[attr-defined]
    elif action == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(NAMES))] = parent.pop(path[-1])
    elif action == "swap":
        same = [part for part in PARTS if type(part) is type(own)]
        parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(same or PARTS)))  # type: ignore[index]
    elif action == "respell" and isinstance(own, (int, str)):
        parent[path[-1]] = own + draw(st.sampled_from(OWN_ENDS)) if isinstance(own, str) else float(own)  # type: ignore[index]
    elif action == "none":
        parent[path[-1]] = None  # type: ignore[index]
    else:
        parent[path[-1]] = copy.deepcopy(draw(VALUES))  # type: ignore[index]


def problems(raw: dict[str, object]) -> list[str]:
    try:
        config_from_mapping(raw, source="c")
    except ConfigErrors as error:
        return list(error.lines)
    return []


def check(raw: dict[str, object]) -> str:
    return compare(raw, problems(raw))


@settings(max_examples=2500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=configs())
def test_the_schema_accepts_what_the_parser_accepts_and_nothing_else(raw: dict[str, object]) -> None:
    event(check(raw))


def changed(raw: dict[str, object], path: Place, value: object) -> dict[str, object]:
    copied = copy.deepcopy(raw)
    at(copied, path[:-1])[path[-1]] = value  # type: ignore[index]
    return copied


def leaves(kind: type) -> list[tuple[dict[str, object], Place]]:
    """Where values of a kind stand in the seeds, each field once."""
    found = {}
    for raw in RAWS:
        for path in places(raw):
            if type(at(raw, path)) is kind:
                found.setdefault((type(path[-1]) is int, *path[-2:]), (raw, path))
    return list(found.values())


@pytest.mark.parametrize("number", NUMBERS)
def test_each_number_is_judged_alike_in_each_field(number: float) -> None:
    for raw, path in (*leaves(int), *leaves(float)):
        check(changed(raw, path, number))


@pytest.mark.parametrize("text", TEXTS)
def test_each_text_is_judged_alike_in_each_field(text: str) -> None:
    for raw, path in leaves(str):
        check(changed(raw, path, text))


@pytest.mark.parametrize("raw", RAWS, ids=range(len(RAWS)))
def test_each_field_beside_each_other_is_judged_alike(raw: dict[str, object]) -> None:
    """Fields that any section has which shares one with the map, each with every value known for it."""
    for path in places(raw):
        own = at(raw, path)
        if not isinstance(own, dict):
            continue
        for name in sorted(set().union(*(names for names in SECTIONS if names & own.keys())) - own.keys()):
            for value in KNOWN.get(name, [1, "a"]):
                check(changed(raw, (*path, name), value))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("raw", RAWS, ids=range(len(RAWS)))
def test_the_seeds_are_good(raw: dict[str, object]) -> None:
    assert check(raw) == "accepted"


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/*.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_fit(path: Path) -> None:
    assert check(read_document(path.read_text(encoding="utf-8"), path.name).plain()) == "accepted"


def blocks() -> list[str]:
    pages = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
    texts = [text for page in pages for text in page.read_text(encoding="utf-8").split("```yaml\n")[1:]]
    of_host = ("task_container_defaults", "runtime:")  # begin the host's own file
    return [text.partition("```")[0] for text in texts if not text.startswith(of_host)]


@pytest.mark.parametrize("text", blocks())
def test_configs_and_parts_of_configs_in_the_docs_fit(text: str) -> None:
    part = read_document(text, "docs").plain()
    assert isinstance(part, dict)
    whole = RAWS[1] if "searcher" not in part else {"entrypoint": "a:B"}
    assert check({**whole, **part}) == "accepted"


# For each rule that the schema does not tell, a config that breaks it.
BREAKS = dict(
    zip(
        PARSER_ONLY_RULES,
        (
            {"hyperparameters": {"a": {"type": "int", "minval": 2, "maxval": 1}}},
            {"resources": {"slots_per_trial": 2, "max_slots": 1}},
            {"profiling": {"begin_on_batch": 2, "end_after_batch": 1}},
            {"bind_mounts": [{"host_path": "/a", "container_path": path} for path in ("b", "./b")]},
            {"log_policies": [{"name": "a", "pattern": "("}]},
            {"searcher": {"name": "adaptive", "metric": "l", "max_length": 9, "budget": 9}},
            {"checkpoint_storage": {"type": "shared_fs", "host_path": "/a", "storage_path": "/b"}},
            {"bind_mounts": [{"host_path": "/a/../etc", "container_path": "b"}]},
            {"resources": {"shm_size": "0k"}},
            {"data": {"a": 2**63}},
            {"data": {"a": functools.reduce(lambda inner, _: [inner], range(100), 1)}},
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("rule", PARSER_ONLY_RULES)
def test_what_the_schema_says_it_does_not_tell_is_told_by_the_parser(rule: str) -> None:
    raw = {**RAWS[1], **BREAKS[rule]}
    (line,) = problems(raw)
    assert re.search(TOLD[rule], line)
    assert VALIDATOR.is_valid(raw)


def test_the_schema_and_its_page_name_the_rules_that_it_does_not_tell() -> None:
    page = (ROOT / "docs/editors.md").read_text(encoding="utf-8").replace("`", "")
    for rule in PARSER_ONLY_RULES:
        assert rule.replace("`", "") in page
        assert rule in str(SCHEMA["$comment"])


def patterns(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("pattern"), str):
            yield value["pattern"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from patterns(item)


@pytest.mark.parametrize("pattern", sorted(set(patterns(SCHEMA))))
def test_patterns_mean_the_same_to_editors_as_to_python(pattern: str) -> None:
    for flags in ("", "u"):  # editors try Unicode first
        ecma = regress.Regex(pattern, flags)
        for text in TEXTS:
            assert bool(ecma.find(text)) == bool(re.search(pattern, text)), text


def undescribed(value: object, path: str) -> Iterator[str]:
    """Properties of closed maps, which are those that a person writes."""
    if isinstance(value, dict):
        if "properties" in value and value.get("additionalProperties") is False and "oneOf" not in value:
            fields = value["properties"].items()
            yield from (f"{path}.{name}" for name, field in fields if not field.get("description"))
        for key, item in value.items():
            yield from undescribed(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from undescribed(item, path)


def test_each_field_says_what_it_is_for() -> None:
    assert list(undescribed(SCHEMA, "$")) == []
