from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.parse import (
    DEFAULT,
    LOCAL_DEFAULTS,
    Traced,
    Value,
    config_from_mapping,
    load_config,
    parse_config,
    trace_config,
    values,
    written,
)
from detbuild.config.section import Length
from detbuild.config.sources import Layer, parted, text_layer
from detbuild.config.yaml import ConfigErrors
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


MINIMAL = "entrypoint: model_def:T\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SEARCHER = "{name: single, metric: loss, max_length: {epochs: 1}}`"
MEANT = "write `model_def:T`, or a command as a list"
TRUTH = "write `true`; YAML 1.2 booleans are true and false"
LENGTHS = "write one of {batches: 5}, {records: 5}, {epochs: 5}"


def refusal(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, source="c.yaml")
    assert all(len(line) < 200 for line in caught.value.lines)
    return str(caught.value).splitlines()


def test_every_field_has_its_default() -> None:
    assert parse_config(MINIMAL).resolved() == {
        "version": 0,
        "name": None,
        "description": None,
        "labels": [],
        "workspace": "",
        "project": "",
        "data": {},
        "entrypoint": "model_def:T",
        "hyperparameters": {},
        "searcher": {
            "name": "single",
            "metric": "loss",
            "smaller_is_better": True,
            "source_trial_id": None,
            "source_checkpoint_uuid": None,
            "max_length": {"epochs": 1},
        },
        "resources": {
            "slots_per_trial": 1,
            "shm_size": 4 << 30,
            "memory": None,
            "cpus": None,
            "devices": [],
            "max_slots": None,
            "weight": 1.0,
            "priority": None,
            "resource_pool": "",
            "is_single_node": None,
            "native_parallel": None,
            "agent_label": None,
        },
        "environment": {
            "image": {"cpu": None, "cuda": None, "rocm": None},
            "environment_variables": {"cpu": [], "cuda": [], "rocm": []},
            "ports": {},
            "proxy_ports": [],
            "force_pull_image": False,
            "registry_auth": None,
            "add_capabilities": [],
            "drop_capabilities": [],
            "read_only_root": False,
            "pod_spec": None,
        },
        "bind_mounts": [],
        "checkpoint_storage": {
            "type": None,
            "save_experiment_best": 0,
            "save_trial_best": 1,
            "save_trial_latest": 1,
        },
        "checkpoint_policy": "best",
        "min_validation_period": {"batches": 0},
        "min_checkpoint_period": {"batches": 0},
        "perform_initial_validation": False,
        "preflight_validation": True,
        "records_per_epoch": 0,
        "scheduling_unit": 100,
        "max_restarts": 5,
        "reproducibility": {"experiment_seed": None},
        "profiling": {"enabled": False, "begin_on_batch": 0, "end_after_batch": None, "sync_timings": True},
        "optimizations": {
            "aggregation_frequency": 1,
            "average_aggregated_gradients": True,
            "average_training_metrics": True,
            "gradient_compression": False,
            "grad_updates_size_file": None,
            "mixed_precision": "O0",
            "tensor_fusion_threshold": 64,
            "tensor_fusion_cycle_time": 1,
            "auto_tune_tensor_fusion": False,
        },
        "log_policies": [
            {"name": "CUDA OOM", "pattern": ".*CUDA out of memory.*", "action": None},
            {"name": "ECC Error", "pattern": ".*uncorrectable ECC error encountered.*", "action": None},
        ],
        "retention_policy": {"log_retention_days": None},
        "integrations": None,
        "preemption_timeout": None,
        "exit_timeout": 300,
        "debug": False,
        "slurm": {"slots_per_node": None, "gpu_type": None, "sbatch_args": []},
        "pbs": {"slots_per_node": None, "pbsbatch_args": []},
        "security": None,
        "tensorboard_storage": None,
        "data_layer": None,
        "internal": None,
    }


@pytest.mark.parametrize("field", ExperimentConfig.model_fields)
def test_null_is_absence(field: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.startswith(f"{field}:"))
    if field in {"entrypoint", "searcher"}:
        assert (
            f": {field}: is {'missing' if field == 'entrypoint' else 'empty'}; add"
            in refusal(f"{text}{field}: null\n")[0]
        )
    else:
        assert parse_config(f"{text}{field}: null\n") == parse_config(MINIMAL)


def test_null_is_absence_inside_of_sections_too() -> None:
    text = MINIMAL + "resources: {shm_size: ~, devices: null}\nenvironment: {image: {cpu: ~}}\n"
    assert parse_config(text) == parse_config(MINIMAL)


def test_null_is_a_value_in_data_and_hyperparameters() -> None:
    config = parse_config(
        MINIMAL + "data: {a: ~}\nhyperparameters: {b: ~, c: {type: const, val: ~}, d: {e: ~}}\n"
    )
    none = {"type": "const", "val": None}
    assert config.resolved()["data"] == {"a": None}
    assert config.resolved()["hyperparameters"] == {"b": none, "c": none, "d": {"e": none}}


def test_the_resolved_config_is_json_and_gives_the_same_config_again() -> None:
    text = MINIMAL + (
        "hyperparameters: {a: 1, lr: {type: log, base: 10, minval: -4, maxval: -1}, n: {m: [1, ~]}}\n"
        "environment: {image: a/b:1, environment_variables: {gpu: [A=1]}}\n"
        "checkpoint_storage: {type: shared_fs, host_path: /data, storage_path: a/b}\n"
        "log_policies: [{name: CUDA OOM}, {name: mine, pattern: x, action: {type: exclude_node}}]\n"
        "resources: {devices: [/dev/a:/dev/b:rw], shm_size: 1.5 GiB}\n"
    )
    config = parse_config(text)
    again = config_from_mapping(json.loads(json.dumps(config.resolved(), allow_nan=False)))
    assert again == config
    assert again.resolved() == config.resolved()


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        "entrypoint: model_def.py:T\n"
        "searcher: {name: single, metrc: loss, max_length: 0}\n"
        "max_restarts: true\n"
        "scheduling_unit: twelve\n"
        "resources:\n"
        "  slot_per_trial: 2\n"
        "  slots_per_trial: -1\n"
        "shm_size: 4g\n"
        "debug: yes\n"
        "labels: mnist\n"
        "name: 5\n"
        "checkpoint_policy: last\n"
        "min_validation_period: 5\n"
        "hyperparameters: {lr: .nan, n: {type: intt}, m: {o: {type: int, minval: 1.5, maxval: 2}}}\n"
    )
    assert refusal(text) == [
        "c.yaml:1:13: entrypoint: 'model_def.py:T' is not of the form `module:Class`; " + MEANT,
        "c.yaml:2:11: searcher.metric: is missing; add `metric:` with the name of a validation metric",
        "c.yaml:2:26: searcher.metrc: unknown field of `searcher`; did you mean `metric`?",
        "c.yaml:2:51: searcher.max_length: must be a whole number of at least 1, not 0",
        "c.yaml:3:15: max_restarts: must be a whole number, not true",
        "c.yaml:4:18: scheduling_unit: must be a whole number, not 'twelve'",
        "c.yaml:6:3: resources.slot_per_trial: unknown field of `resources`; did you mean `slots_per_trial`?",
        "c.yaml:7:20: resources.slots_per_trial: must be at least 0, not -1",
        "c.yaml:8:1: shm_size: unknown field of the experiment config; did you mean `resources.shm_size`?",
        "c.yaml:9:8: debug: must be true or false, not 'yes'; " + TRUTH,
        "c.yaml:10:9: labels: must be a list, not 'mnist'; write `[mnist]`",
        "c.yaml:11:7: name: must be text, not 5; put it in quotes",
        "c.yaml:12:20: checkpoint_policy: must be best, all or none, not 'last'",
        "c.yaml:13:24: min_validation_period: must be a length, not 5; " + LENGTHS,
        "c.yaml:14:23: hyperparameters.lr: must be a finite number within ±1.8e308, not nan",
        "c.yaml:14:39: hyperparameters.n.type: unknown type 'intt'; did you mean `int`?",
        "c.yaml:14:73: hyperparameters.m.o.minval: must be a whole number, not 1.5",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("data: {a: [{b: -.inf}]}", "data.a[0].b: must be a finite number within ±1.8e308, not -inf"),
        ("data: {a: 1e400}", "data.a: must be a finite number within ±1.8e308, not inf"),
        ("data: {a: 12345678901234567890123}", "data.a: must be between -2**63 and 2**63-1; it has 74 bits"),
        ('data: {a: "\\0"}', "data.a: contains a NUL or a lone surrogate"),
        ('"\\0": 1', "'\\x00': contains a NUL or a lone surrogate"),
        ("hyperparameters: {a: {type: categorical, vals: [1, .inf]}}", "hyperparameters.a.vals[1]: must be"),
        ("max_restarts: 1.5", "max_restarts: must be a whole number, not 1.5"),
        ("records_per_epoch: -5", "records_per_epoch: must be at least 0, not -5"),
        ("searchers: {}", "searchers: unknown field of the experiment config; did you mean `searcher`?"),
        ("version: 1", "version: must be 0, not 1"),
        ("resources: {priority: 100}", "resources.priority: must be at most 99, not 100"),
        (
            "reproducibility: {experiment_seed: 4294967296}",
            "reproducibility.experiment_seed: must be at most",
        ),
        ("workspace: a", "workspace: needs project too; add `project`, or remove workspace"),
        ("project: a", "project: needs workspace too; add `workspace`, or remove project"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(line: str, problem: str) -> None:
    (told,) = refusal(MINIMAL + line)
    assert told.startswith("c.yaml:3:")
    assert told.split(": ", 1)[1].startswith(problem)


@pytest.mark.parametrize(
    "line",
    [
        'bind_mounts: [{host_path: "/proc/\\e[31m\\n", container_path: a}]',
        'log_policies: [{name: a, pattern: "(?\\n"}]',
        'environment: {environment_variables: [{"\\a": "\\n"}]}',
        'labels: "\\n\\e[2J"',
        '"\\e[2J\\n": 1',
        'entrypont: "\\r"',
    ],
)
def test_no_line_break_or_terminal_escape_of_a_config_reaches_the_screen(line: str) -> None:
    (told,) = refusal(MINIMAL + line)
    assert told.isprintable()


def test_what_must_be_there_is_asked_for() -> None:
    assert refusal("name: x") == [
        "c.yaml:1:1: entrypoint: is missing; add `entrypoint: model_def:MyTrial`",
        "c.yaml:1:1: searcher: is missing; add `searcher: " + SEARCHER,
    ]


def test_a_trial_class_needs_a_length_and_a_script_does_not() -> None:
    searcher = "searcher: {name: single, metric: loss}\n"
    assert parse_config("entrypoint: python3 train.py\n" + searcher).searcher.max_length is None
    (line,) = refusal("entrypoint: a:B\n" + searcher)
    assert line.startswith("c.yaml:2:11: searcher: needs max_length")


def test_many_problems_are_cut_to_a_screenful() -> None:
    lines = refusal(MINIMAL + "".join(f"x{index}: 1\n" for index in range(80)))
    assert (len(lines), lines[-1]) == (51, "... and 30 more")


def test_a_secret_is_not_shown_in_its_own_error() -> None:
    text = MINIMAL + "environment: {registry_auth: {password: 12345, serveraddress: 678}}\n"
    secret, address = refusal(text)
    assert secret.endswith("auth.password: must be text, not a number; put it in quotes")
    assert address.endswith("auth.serveraddress: must be text, not 678; put it in quotes")


def test_a_file_is_read_with_its_name_in_every_error(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(path, ["max_restarts=1"]).max_restarts == 1
    path.write_text("a: 1\n")
    with pytest.raises(ConfigErrors, match=f"^{path}:1:1: "):
        load_config(path)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the experiment config .*: No such file or directory"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "a\0b")


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigErrors, match=f"^{path}:2:4: is not UTF-8 text; save it as UTF-8$"):
        load_config(path)
    path.write_text(MINIMAL, encoding="utf-16-le")
    with pytest.raises(ConfigErrors, match=f"^{path}:1:2: has a NUL character, as UTF-16 without a byte"):
        load_config(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_is_read_by_its_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(MINIMAL.replace("\n", "\r\n").encode(encoding))
    assert load_config(path) == parse_config(MINIMAL)


def test_a_pipe_of_the_shell_is_read_and_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, MINIMAL.encode())
    os.close(writer)
    assert load_config(Path(f"/dev/fd/{reader}")) == parse_config(MINIMAL)
    os.close(reader)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigErrors, match=r"fifo: is not a regular file$"):
        load_config(tmp_path / "fifo")


def test_a_large_file_is_told_from_one_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("ä" * (3 << 20), encoding="utf-8")
    with pytest.raises(ConfigErrors, match="is larger than 4 MiB"):
        load_config(path)


def test_an_endless_file_is_refused() -> None:
    if not os.access("/dev/zero", os.R_OK):
        pytest.skip("no /dev/zero here")
    with pytest.raises(ConfigErrors, match="is not a regular file"):
        load_config(Path("/dev/zero"))


def test_a_mapping_of_python_values_is_a_config() -> None:
    mapping = {
        "entrypoint": ("python3", "train.py"),
        "searcher": {"name": "single", "metric": "loss"},
        "hyperparameters": {"lr": np.float64(0.5), "n": np.int64(3), "path": Path("/data"), "t": (1, 2)},
    }
    config = config_from_mapping(mapping)
    assert config.entrypoint.value == ("python3", "train.py")
    assert config.resolved()["hyperparameters"] == {
        name: {"type": "const", "val": value}
        for name, value in {"lr": 0.5, "n": 3, "path": "/data", "t": [1, 2]}.items()
    }


def test_local_training_needs_neither_entrypoint_nor_searcher() -> None:
    config = config_from_mapping({}, defaults=LOCAL_DEFAULTS)
    assert (config.entrypoint.kind, config.entrypoint.value, config.searcher.metric) == ("given", "", None)
    assert config.searcher.max_length == Length("batches", 100)


def test_a_users_searcher_wins_over_the_local_one() -> None:
    own = {"searcher": {"metric": "loss", "max_length": {"epochs": 2}}}
    config = config_from_mapping(own, defaults=LOCAL_DEFAULTS)
    assert (config.searcher.metric, config.searcher.max_length) == ("loss", Length("epochs", 2))
    other = {"searcher": {"name": "random", "metric": "loss", "max_trials": 2}}
    assert config_from_mapping(other, defaults=LOCAL_DEFAULTS).searcher.max_length is None


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"resources": {1: 2}}, "config: resources: a key must be text, not a value of type int"),
        ({"data": {(1, 2): 2}}, "config: data: a key must be text, not a value of type tuple"),
        ({"data": {1: 2, "1": 3}}, "config: data.1: is given twice"),
        (
            {"data": {"a": object()}},
            "config: data.a: is a value of type object, which a config cannot contain",
        ),
        ({"data": {"a": b"x"}}, "config: data.a: is a value of type bytes, which a config cannot contain"),
        ({"data": {"a": float("nan")}}, "config: data.a: must be a finite number"),
        ({"data": {"a": 10**5000}}, "config: data.a: must be between -2**63 and 2**63-1"),
        ({"data": {"a": "\ud800"}}, "config: data.a: contains a NUL or a lone surrogate"),
    ],
)
def test_a_mapping_is_held_to_the_same_rules(mapping: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config_from_mapping(mapping, defaults=LOCAL_DEFAULTS)
    assert str(caught.value).startswith(problem)


def test_a_mapping_that_holds_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["data"] = loop
    with pytest.raises(ConfigErrors, match="is nested more than 100 levels deep"):
        config_from_mapping(loop, defaults=LOCAL_DEFAULTS)


def test_a_list_is_no_config() -> None:
    with pytest.raises(ConfigErrors, match="config: must be a map of fields, not a list"):
        config_from_mapping([1])  # type: ignore[arg-type]


def test_keys_that_are_not_text_are_text_where_the_user_chooses_them() -> None:
    names = "{0: cat, true: x, null: y, 1.5: z, a: {2: b}}"
    taken = {"0": "cat", "true": "x", "null": "y", "1.5": "z", "a": {"2": "b"}}
    text = f"data: {names}\nhyperparameters: {{m: {{type: const, val: {names}}}}}\n"
    config = parse_config(MINIMAL + text, overrides=[f"data.more={names}"])
    assert config.resolved()["data"] == {**taken, "more": taken}
    assert config.resolved()["hyperparameters"] == {"m": {"type": "const", "val": taken}}
    mapping = {0: "cat", True: "x", None: "y", 1.5: "z", "a": {2: "b"}}
    assert config_from_mapping({**config.resolved(), "data": mapping}).resolved()["data"] == taken


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


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.sampled_from(
        ["1e3", "0x1f", "null", "~", "yes", "a: b", "a #b", "- a", "a:", "\x1b[31m", "\u202e", "'", '"']
    ),
)
DATA = st.dictionaries(
    TEXT,
    st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(data=DATA)
def test_what_is_written_is_read_as_the_same_and_nothing_in_it_acts_on_a_terminal(
    data: dict[str, object],
) -> None:
    data.pop("secrets", None)
    config = parse_config(BASE).model_copy(update={"data": data})
    traced = Traced(config, parted({"data": data}, 0), (Layer("a file\n\x1b", {}),))
    text = written(values(traced, config.resolved()))
    assert all(line.isprintable() for line in text.splitlines())
    assert parse_config(text).resolved() == config.resolved()


def test_sections_and_items_begin_where_yaml_has_them() -> None:
    given_ = [
        Value(("a", "b"), 1, "x"),
        Value(("a", "list", 0, "c"), "long enough", "y"),
        Value(("a", "list", 0, "d"), {}, ""),
        Value(("a", "list", 1, 0), [], "z"),
        Value(("e",), None, "default"),
    ]
    assert written(given_) == (
        "a:\n"
        "  b: 1                  # x\n"
        "  list:\n"
        '    - c: "long enough"  # y\n'
        "      d: {}\n"
        "    - - []              # z\n"
        "e: null                 # default\n"
    )
