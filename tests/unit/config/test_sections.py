"""The rules of single sections, one promise a row: what is taken and what is refused."""

from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors

QUOTE = "'"
MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"


def taken(text: str, *path: str) -> object:
    value: object = parse_config(MINIMAL + text).resolved()
    for part in path:
        assert isinstance(value, dict)
        value = value[part]
    return value


def refusal(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(MINIMAL + text, source="c.yaml")
    (line,) = caught.value.lines
    assert len(line) < 200
    return line.split(": ", 1)[1]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("4294967296", 4 << 30),
        ("1e9", 10**9),
        ("'64'", 64),
        ("64k", 64 << 10),
        ("64 KB", 64 << 10),
        ("64KiB", 64 << 10),
        ("1.5m", 3 << 19),
        ("4g", 4 << 30),
        ("4 GiB", 4 << 30),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes_count_in_powers_of_1024(written: str, size: int) -> None:
    assert taken(f"resources: {{shm_size: {written}}}", "resources", "shm_size") == size


@pytest.mark.parametrize(
    "written", ["0", "-1", "4x", "g", "4  g", "'4 g g'", "'1e9'", "1.5", "''", "999999p", "true"]
)
def test_what_is_no_size_is_refused(written: str) -> None:
    assert refusal(f"resources: {{shm_size: {written}}}").startswith("resources.shm_size: ")


def test_devices_are_text_or_maps() -> None:
    text = (
        "resources: {devices: [/dev/a:/dev/b, /dev/a:/dev/c:r, {host_path: /dev/a, container_path: /dev/d}]}"
    )
    assert taken(text, "resources", "devices") == [
        {"host_path": "/dev/a", "container_path": "/dev/b", "mode": "mrw"},
        {"host_path": "/dev/a", "container_path": "/dev/c", "mode": "r"},
        {"host_path": "/dev/a", "container_path": "/dev/d", "mode": "mrw"},
    ]


def test_one_image_or_one_list_of_variables_is_for_every_kind_of_device() -> None:
    text = "environment: {image: a:1, environment_variables: [A=1, B=x=y, 'C=']}"
    variables = ["A=1", "B=x=y", "C="]
    assert taken(text, "environment", "image") == dict.fromkeys(("cpu", "cuda", "rocm"), "a:1")
    assert taken(text, "environment", "environment_variables") == dict.fromkeys(
        ("cpu", "cuda", "rocm"), variables
    )


def test_gpu_is_the_old_name_of_cuda() -> None:
    text = "environment: {image: {cpu: a, gpu: b}, environment_variables: {gpu: [A=1]}}"
    assert taken(text, "environment", "image") == {"cpu": "a", "cuda": "b", "rocm": None}
    assert taken(text, "environment", "environment_variables") == {"cpu": [], "cuda": ["A=1"], "rocm": []}


def test_each_kind_of_device_has_its_own_image_and_variables() -> None:
    config = parse_config(MINIMAL + "environment: {image: {cpu: a}, environment_variables: {cuda: [A=1]}}")
    environment = config.environment
    assert (environment.image.of("cpu"), environment.image.of("cuda")) == ("a", None)
    assert (environment.environment_variables.of("cpu"), environment.environment_variables.of("cuda")) == (
        (),
        ("A=1",),
    )


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu",
        "library/ubuntu:22.04",
        "localhost:5000/a/b_c/d__e-f.g:v1",
        "registry.example.com/team/image@sha256:" + "0" * 64,
        "a:1@sha256:" + "f" * 64,
        "sha256:" + "0" * 64,
        "'[::1]:5000/a'",
    ],
)
def test_image_references_follow_the_grammar(reference: str) -> None:
    assert taken(
        f"environment: {{image: {{cpu: {reference}}}}}", "environment", "image", "cpu"
    ) == reference.strip(QUOTE)


@pytest.mark.parametrize(
    "reference",
    ["Ubuntu", "'a b'", "-x", "'a:'", "a@sha256:12", '"a\\nRUN x"', "a//b", "a:$HOME", "''", "a" * 600],
)
def test_what_is_no_image_reference_is_refused(reference: str) -> None:
    assert refusal(f"environment: {{image: {{cpu: {reference}}}}}").startswith(
        "environment.image.cpu: is not a valid image"
    )


def test_labels_are_a_set_in_their_first_order() -> None:
    assert taken("labels: [b, a, b]", "labels") == ["b", "a"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("5", {"batches": 5}),
        ("{batches: 5}", {"batches": 5}),
        ("{records: 5}", {"records": 5}),
        ("{epochs: 5}", {"epochs": 5}),
    ],
)
def test_a_training_length_has_one_unit(written: str, kept: dict[str, int]) -> None:
    text = f"entrypoint: a:B\nsearcher: {{name: single, metric: loss, max_length: {written}}}\n"
    searcher = parse_config(text).resolved()["searcher"]
    assert isinstance(searcher, dict)
    assert searcher["max_length"] == kept


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "{epochs: 1, batches: 1}",
        "{epoch: 1}",
        "{epochs: -1}",
        "{epochs: 1.5}",
        "{epochs: true}",
        "five",
    ],
)
def test_what_is_no_length_is_refused(written: str) -> None:
    assert refusal(f"min_validation_period: {written}").startswith("min_validation_period")


@pytest.mark.parametrize(
    ("searcher", "defaults"),
    [
        ("name: random, max_trials: 3", {"max_concurrent_trials": 16}),
        ("name: grid", {"max_concurrent_trials": 16}),
        (
            "name: async_halving, num_rungs: 2, max_trials: 3",
            {
                "divisor": 4.0,
                "max_concurrent_trials": 16,
                "stop_once": False,
                "max_time": None,
                "time_metric": None,
            },
        ),
        (
            "name: adaptive_asha, max_trials: 3",
            {
                "mode": "standard",
                "divisor": 4.0,
                "max_rungs": 5,
                "bracket_rungs": [],
                "max_concurrent_trials": 16,
            },
        ),
        ("name: adaptive_simple, max_trials: 3", {"mode": "standard", "divisor": 4.0, "max_rungs": 5}),
        ("name: adaptive, budget: {epochs: 9}", {"mode": "standard", "max_rungs": 5, "bracket_rungs": []}),
        ("name: sync_halving, num_rungs: 2, budget: {epochs: 9}", {"divisor": 4.0, "budget": {"epochs": 9}}),
        (
            "name: pbt, population_size: 2, num_rounds: 2, length_per_round: 5",
            {
                "replace_function": {"truncate_fraction": 0.2},
                "explore_function": {"resample_probability": 0.2, "perturb_factor": 0.2},
            },
        ),
        (
            "name: custom",
            {"unit": None, "hook": None, "options": {}, "max_trials": None, "stop_once": False},
        ),
        (
            "name: optuna, max_trials: 3",
            {"sampler": "tpe", "startup_trials": None, "max_concurrent_trials": 16},
        ),
    ],
)
def test_every_search_method_is_read_with_its_defaults(searcher: str, defaults: dict[str, object]) -> None:
    text = f"entrypoint: a:B\nsearcher: {{metric: loss, max_length: {{epochs: 1}}, {searcher}}}\n"
    kept = parse_config(text).resolved()["searcher"]
    assert isinstance(kept, dict)
    assert {key: kept[key] for key in defaults} == defaults


@pytest.mark.parametrize(
    ("storage", "kept"),
    [
        ("save_trial_best: 3", {"type": None, "save_trial_best": 3}),
        (
            "type: shared_fs, host_path: /data",
            {"host_path": "/data", "storage_path": None, "propagation": "rprivate"},
        ),
        ("type: shared_fs, host_path: /data, storage_path: /data/x", {"storage_path": "/data/x"}),
        ("type: directory, container_path: /ckpt", {"container_path": "/ckpt"}),
        ("type: s3, bucket: b, prefix: a/b", {"bucket": "b", "access_key": None, "prefix": "a/b"}),
        ("type: gcs, bucket: b", {"bucket": "b", "prefix": None}),
        ("type: azure, container: c, account_url: u, credential: k", {"account_url": "u", "credential": "k"}),
    ],
)
def test_every_kind_of_storage_is_read(storage: str, kept: dict[str, object]) -> None:
    resolved = taken(f"checkpoint_storage: {{{storage}}}", "checkpoint_storage")
    assert isinstance(resolved, dict)
    assert {key: resolved[key] for key in kept} == kept


@pytest.mark.parametrize(
    ("directory", "path"),
    [("/data", "{}"), ("/data/a/b", "{storage_path: a/b}"), ("/data/a", "{storage_path: /data/x/../a}")],
)
def test_checkpoints_lie_below_the_host_path(directory: str, path: str) -> None:
    extra = path.strip("{}")
    text = f"checkpoint_storage: {{type: shared_fs, host_path: /data, {extra}}}"
    assert getattr(parse_config(MINIMAL + text).checkpoint_storage, "directory", None) == directory


HYPERPARAMETER_RULES = [
    ("{type: int, minval: 2, maxval: 2}", "h.maxval: must be above minval, 2, not 2"),
    ("{type: int, minval: 1.5, maxval: 2}", "h.minval: must be a whole number, not 1.5"),
    ("{type: int, minval: 1, maxval: 2, count: 0}", "h.count: must be at least 1, not 0"),
    ("{type: int, minval: 1}", "h.maxval: is missing; add `maxval:`"),
    ("{type: double, minval: 1e-1, maxval: 1e-2}", "h.maxval: must be above minval, 0.1, not 0.01"),
    ("{type: log, minval: -4, maxval: -1}", "h.base: is missing; add `base:`"),
    ("{type: log, minval: -4, maxval: -1, base: 0}", "h.base: must be above 0, not 0"),
    (
        "{type: log, minval: 1, maxval: 400, base: 10}",
        "h.maxval: base ** maxval is out of range for a double",
    ),
    ("{type: log, minval: -400, maxval: 1, base: 0.1}", "h.minval: base ** minval is out of range"),
    ("{type: categorical, vals: []}", "h.vals: must not be empty"),
    ("{type: categorical, vals: a}", "h.vals: must be a list, not 'a'; write `[a]`"),
    ("{type: const}", "h.val: is missing; add `val:`"),
    ("{type: uniform, minval: 1}", "h.type: unknown type 'uniform'; did you mean `double`?"),
    ("{type: [int]}", "h.type: unknown type a list"),
    ("{a: {type: ~}}", "h.a.type: unknown type null"),
    ("{a: {type: int, minval: 1, maxval: 3, mxval: 4}}", "h.a.mxval: unknown field of `hyperparameters.h.a`"),
]


@pytest.mark.parametrize(("written", "problem"), HYPERPARAMETER_RULES)
def test_a_wrong_hyperparameter_is_refused_by_its_path(written: str, problem: str) -> None:
    assert refusal(f"hyperparameters: {{h: {written}}}").startswith(f"hyperparameters.{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bind_mounts: [{host_path: a, container_path: b}]", "bind_mounts[0].host_path: must be absolute"),
        ("bind_mounts: [{host_path: /a}]", "bind_mounts[0].container_path: is missing"),
        (
            "bind_mounts: [{host_path: /a, container_path: .}]",
            "bind_mounts[0].container_path: is the work directory",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: ''}]",
            "bind_mounts[0].container_path: is the work directory",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: ../x}]",
            "bind_mounts[0].container_path: must not contain `..`",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: /proc/1}]",
            "bind_mounts[0].container_path: /proc/1 is in use",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: b, propagation: x}]",
            "bind_mounts[0].propagation: must be",
        ),
        (
            "bind_mounts: [{host_path: /a, container_path: b}, {host_path: /c, container_path: b/}]",
            "bind_mounts[1].container_path: is also the container_path of bind_mounts[0]",
        ),
        ("bind_mounts: [/a:/b]", "bind_mounts[0]: must be a map, not '/a:/b'"),
        ("checkpoint_storage: {type: shared_fs}", "checkpoint_storage.host_path: is missing"),
        (
            "checkpoint_storage: {type: shared_fs, host_path: /, storage_path: a}",
            "checkpoint_storage.host_path: / is a system directory",
        ),
        (
            "checkpoint_storage: {type: shared_fs, host_path: /d, storage_path: /e}",
            "checkpoint_storage.storage_path: must be below host_path; make it relative",
        ),
        (
            "checkpoint_storage: {type: shared_fs, host_path: /d, storage_path: ../d2}",
            "checkpoint_storage.storage_path: must be below host_path",
        ),
        (
            "checkpoint_storage: {type: s3, bucket: b, prefix: a/../b}",
            "checkpoint_storage.prefix: must not contain `..`",
        ),
        ("checkpoint_storage: {type: s3}", "checkpoint_storage.bucket: is missing"),
        (
            "checkpoint_storage: {type: azure, container: c}",
            "checkpoint_storage: needs exactly one of connection_string",
        ),
        (
            "checkpoint_storage: {type: azure, container: c, account_url: u, connection_string: s}",
            "checkpoint_storage: needs exactly one of connection_string and account_url",
        ),
        (
            "checkpoint_storage: {type: azure, container: c, connection_string: s, credential: k}",
            "checkpoint_storage.credential: is only valid with account_url",
        ),
        (
            "checkpoint_storage: {type: nfs}",
            "checkpoint_storage.type: unknown type 'nfs'; did you mean `shared_fs`?",
        ),
        (
            "checkpoint_storage: {save_trial_best: -1}",
            "checkpoint_storage.save_trial_best: must be at least 0, not -1",
        ),
        (
            "environment: {environment_variables: [A]}",
            "environment.environment_variables[0]: must be NAME=VALUE",
        ),
        (
            "environment: {environment_variables: [1A=b]}",
            "environment.environment_variables[0]: has an invalid variable name before the `=`",
        ),
        (
            "environment: {environment_variables: ['A B=c']}",
            "environment.environment_variables[0]: has an invalid variable name before the `=`",
        ),
        (
            "environment: {environment_variables: [A: b]}",
            "environment.environment_variables[0]: must be text of the form",
        ),
        (
            "environment: {environment_variables: {A: b}}",
            "environment.environment_variables.A: unknown field of",
        ),
        (
            "environment: {image: {gpu: a, cuda: b}}",
            "environment.image.gpu: is the old name of cuda, which is also given",
        ),
        ("environment: {image: {gpu: A}}", "environment.image.gpu: is not a valid image reference"),
        ("environment: {image: 5}", "environment.image: must be a map, not 5"),
        ("environment: {ports: {a: 0}}", "environment.ports.a: must be at least 1, not 0"),
        ("environment: {ports: {a: 70000}}", "environment.ports.a: must be at most 65535, not 70000"),
        ("environment: {ports: [80]}", "environment.ports: must be a map, not a list"),
        (
            "environment: {add_capabilities: [a b]}",
            "environment.add_capabilities[0]: must be a Linux capability",
        ),
        (
            "resources: {slots_per_trial: 2, max_slots: 1}",
            "resources.max_slots: must be at least slots_per_trial, 2",
        ),
        ("resources: {devices: [/dev/a]}", "resources.devices[0]: is not a valid device"),
        (
            "resources: {devices: ['a:/b']}",
            "resources.devices[0]: must be an absolute path, not 'a'",
        ),
        ("resources: {devices: ['/a:/b:rr']}", "resources.devices[0]: is not a valid device mode"),
        (
            "resources: {slots: 2}",
            "resources.slots: unknown field of `resources`; write slots_per_trial: the GPUs of one trial",
        ),
        (
            "profiling: {begin_on_batch: 5, end_after_batch: 4}",
            "profiling.end_after_batch: must be at least begin_on_batch",
        ),
        (
            "optimizations: {mixed_precision: o1}",
            "optimizations.mixed_precision: must be O0, O1, O2 or O3, not 'o1'",
        ),
        (
            "optimizations: {aggregation_frequency: 0}",
            "optimizations.aggregation_frequency: must be at least 1, not 0",
        ),
        (
            "log_policies: [{name: a, pattern: '('}]",
            "log_policies[0].pattern: is not a valid regular expression: missing )",
        ),
        (
            "log_policies: [{name: a, pattern: 'x[[:digit:]]'}]",
            "log_policies[0].pattern: uses the POSIX class [:digit:], which Python's",
        ),
        ("log_policies: [{pattern: a}]", "log_policies[0]: needs a name, or both a pattern and an action"),
        ("log_policies: [{name: a}, {name: a}]", "log_policies[1].name: the name 'a' is given twice"),
        (
            "log_policies: [{name: a, action: stop}]",
            "log_policies[0].action: must be cancel_retries or exclude_node",
        ),
        (
            "retention_policy: {log_retention_days: -2}",
            "retention_policy.log_retention_days: must be at least -1, not -2",
        ),
        ("slurm: {slots_per_node: 0}", "slurm.slots_per_node: must be at least 1, not 0"),
    ],
)
def test_a_broken_rule_is_told_by_its_path(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)


@pytest.mark.parametrize(
    "host_path",
    [
        "/",
        "//",
        "/etc",
        "/etc/",
        "/var/../etc",
        "/proc",
        "/proc/1",
        "/sys/fs/cgroup",
        "/dev",
        "/run",
        "/var/run",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/tmp/docker.sock",
        "/run/user/1000/podman/podman.sock",
        "/var/lib/docker",
        "/var/lib/docker/volumes",
    ],
)
def test_what_is_the_hosts_own_cannot_be_mounted(host_path: str) -> None:
    text = f"bind_mounts: [{{host_path: {host_path}, container_path: data}}]"
    assert refusal(text).startswith("bind_mounts[0].host_path: ")


@pytest.mark.parametrize(
    "host_path", ["/data", "/home/me/data", "/etc/ssl/certs", "/tmp", "/mnt/a:b", "/var/lib/data"]
)
def test_data_can_be_mounted(host_path: str) -> None:
    text = f"bind_mounts: [{{host_path: '{host_path}', container_path: data}}]"
    assert taken(text, "bind_mounts") == [
        {"host_path": host_path, "container_path": "data", "read_only": False, "propagation": "rprivate"}
    ]


@pytest.mark.parametrize(
    ("searcher", "problem"),
    [
        ("metric: loss", "searcher.name: is missing; one of single, random"),
        ("nam: single, metric: loss", "searcher.name: is missing; rename `nam` to `name`"),
        ("name: sngle, metric: loss", "searcher.name: unknown name 'sngle'; did you mean `single`?"),
        ("name: single", "searcher.metric: is missing"),
        ("name: single, metric: ''", "searcher.metric: must not be empty"),
        ("name: random, metric: loss", "searcher.max_trials: is missing"),
        (
            "name: single, metric: loss, max_trials: 3",
            "searcher.max_trials: unknown field of `searcher`; it belongs to",
        ),
        (
            "name: single, metric: loss, source_trial_id: 1, source_checkpoint_uuid: a",
            "searcher.source_checkpoint_uuid: cannot be combined with source_trial_id",
        ),
        (
            "name: single, metric: loss, source_checkpoint_uuid: ../a",
            "searcher.source_checkpoint_uuid: must be a checkpoint ID, not '../a'",
        ),
    ],
)
def test_a_wrong_searcher_is_refused_by_its_path(searcher: str, problem: str) -> None:
    text = f"entrypoint: python3 a.py\nsearcher: {{{searcher}}}\n"
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, source="c.yaml")
    assert str(caught.value).split(": ", 1)[1].startswith(problem)


def test_a_searcher_that_is_text_is_refused() -> None:
    with pytest.raises(ConfigErrors, match="searcher: must be a map with `name`, not 'single'"):
        parse_config("entrypoint: a:B\nsearcher: single\n")


def test_a_default_log_policy_is_replaced_by_its_name() -> None:
    policies = taken("log_policies: [{name: ECC Error}, {pattern: x, action: exclude_node}]", "log_policies")
    assert policies == [
        {"name": "CUDA OOM", "pattern": ".*CUDA out of memory.*", "action": None},
        {"name": "ECC Error", "pattern": None, "action": None},
        {"name": None, "pattern": "x", "action": "exclude_node"},
    ]


def test_dead_sections_are_read_and_kept() -> None:
    text = "data_layer: {type: s3}\ninternal: {native: {command: [a]}}\nsecurity: {}"
    assert taken(text, "internal") == {"native": {"command": ["a"]}}
