"""Configs as people wrote them for Determined 0.13 to 0.38, one statement of its reference a row."""

from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors
from tests.unit.config.configs import search, value_at, whole

DEVICE_MAP = "[{host_path: /dev/x, container_path: /dev/y, mode: r}]"
TODAY: list[tuple[str, str, object]] = [
    ("version: 0", "version", 0),
    ("name: x", "name", "x"),
    ("description: x", "description", "x"),
    ("workspace: a\nproject: b", "project", "b"),
    ("data: {a: {b: [1, ~]}}", "data", {"a": {"b": [1, None]}}),
    (
        "entrypoint: python3 -m determined.launch.torch_distributed train.py",
        "entrypoint",
        "python3 -m determined.launch.torch_distributed train.py",
    ),
    ("entrypoint: [python3, train.py, --lr, '1']", "entrypoint", ["python3", "train.py", "--lr", "1"]),
    ("entrypoint: a.b:Outer.Inner", "entrypoint", "a.b:Outer.Inner"),
    ("checkpoint_policy: none", "checkpoint_policy", "none"),
    ("checkpoint_policy: all", "checkpoint_policy", "all"),
    ("min_validation_period: {batches: 0}", "min_validation_period", {"batches": 0}),
    ("min_checkpoint_period: {records: 5}", "min_checkpoint_period", {"records": 5}),
    ("perform_initial_validation: true", "perform_initial_validation", True),
    ("max_restarts: 0", "max_restarts", 0),
    ("reproducibility: {experiment_seed: 0}", "reproducibility.experiment_seed", 0),
    ("reproducibility: {experiment_seed: 4294967295}", "reproducibility.experiment_seed", 4294967295),
    ("profiling: {begin_on_batch: 5, end_after_batch: 5}", "profiling.end_after_batch", 5),
    ("profiling: {enabled: true}", "profiling.sync_timings", True),
    ("optimizations: {mixed_precision: O3}", "optimizations.mixed_precision", "O3"),
    ("optimizations: {aggregation_frequency: 4}", "optimizations.aggregation_frequency", 4),
    (
        "log_policies: [{name: CUDA OOM, pattern: x}]",
        "log_policies.1",
        {"name": "CUDA OOM", "pattern": "x", "action": None},
    ),
    ("log_policies: [{pattern: x, action: {type: exclude_node}}]", "log_policies.2.action", "exclude_node"),
    ("retention_policy: {log_retention_days: -1}", "retention_policy.log_retention_days", -1),
    ("retention_policy: {log_retention_days: 32767}", "retention_policy.log_retention_days", 32767),
    (
        "integrations: {webhooks: {webhook_id: [1], webhook_name: [a]}}",
        "integrations.webhooks.exclude",
        False,
    ),
    ("integrations: {pachyderm: {dataset: {repo: r}}}", "integrations.pachyderm.dataset.repo", "r"),
    ("preemption_timeout: 60", "preemption_timeout", 60),
    ("debug: true", "debug", True),
    ("slurm: {slots_per_node: 4, gpu_type: tesla, sbatch_args: [--x]}", "slurm.sbatch_args", ["--x"]),
    ("pbs: {slots_per_node: 1, pbsbatch_args: [-l]}", "pbs.pbsbatch_args", ["-l"]),
    (
        "security: {kerberos: {config_file: /etc/krb5.conf}}",
        "security.kerberos.config_file",
        "/etc/krb5.conf",
    ),
    ("tensorboard_storage: {type: s3}", "tensorboard_storage.type", "s3"),
    # hyperparameters
    ("hyperparameters: {a: 1}", "hyperparameters.a", {"type": "const", "val": 1}),
    ("hyperparameters: {a: [1, {b: 2}]}", "hyperparameters.a.val", [1, {"b": 2}]),
    ("hyperparameters: {a: ~}", "hyperparameters.a.val", None),
    ("hyperparameters: {a: {type: const, val: {b: ~}}}", "hyperparameters.a.val", {"b": None}),
    ("hyperparameters: {a: {b: {c: 1}}}", "hyperparameters.a.b.c.val", 1),
    ("hyperparameters: {a: {}}", "hyperparameters.a", {}),
    ("hyperparameters: {type: 3}", "hyperparameters.type.val", 3),
    ("hyperparameters: {optimizer.lr: 3}", "hyperparameters.optimizer.lr", None),
    ("hyperparameters: {a: {type: int, minval: -3, maxval: -2}}", "hyperparameters.a.count", None),
    ("hyperparameters: {a: {type: double, minval: 0, maxval: 1, count: ~}}", "hyperparameters.a.minval", 0.0),
    ("hyperparameters: {a: {type: log, base: 0.5, minval: -4, maxval: -1}}", "hyperparameters.a.base", 0.5),
    (
        "hyperparameters: {a: {type: categorical, vals: [{x: 1}, ~, [2]]}}",
        "hyperparameters.a.vals",
        [{"x": 1}, None, [2]],
    ),
    # searchers
    (search("name: single, max_length: 5"), "searcher.max_length", {"batches": 5}),
    (
        search("name: single, max_length: {epochs: 1}, smaller_is_better: false"),
        "searcher.smaller_is_better",
        False,
    ),
    (
        search("name: random, max_trials: 2, max_length: {epochs: 1}, max_concurrent_trials: 0"),
        "searcher.max_concurrent_trials",
        0,
    ),
    (search("name: grid, max_length: {records: 3}"), "searcher.max_concurrent_trials", 16),
    (
        search("name: async_halving, num_rungs: 3, max_trials: 2, max_time: 4, time_metric: batches"),
        "searcher.divisor",
        4.0,
    ),
    (search("name: adaptive_asha, max_trials: 2, max_time: 4, time_metric: x"), "searcher.mode", "standard"),
    (
        search("name: adaptive_asha, max_trials: 2, max_length: {batches: 4}, stop_once: true"),
        "searcher.stop_once",
        True,
    ),
    (
        search("name: adaptive_asha, max_trials: 2, max_length: 4, divisor: 3, bracket_rungs: [3, 1]"),
        "searcher.bracket_rungs",
        [3, 1],
    ),
    (search("name: custom, unit: batches"), "searcher.unit", "batches"),
    # resources, environment, mounts
    ("resources: {slots_per_trial: 0}", "resources.slots_per_trial", 0),
    ("resources: {slots_per_trial: 2, max_slots: 2}", "resources.max_slots", 2),
    ("resources: {weight: 0.5, priority: 1, resource_pool: p}", "resources.weight", 0.5),
    ("resources: {priority: 99, is_single_node: true}", "resources.is_single_node", True),
    ("resources: {native_parallel: true, agent_label: x}", "resources.agent_label", "x"),
    ("resources: {shm_size: 2 GiB}", "resources.shm_size", 2 << 30),
    (f"resources: {{devices: {DEVICE_MAP}}}", "resources.devices.0.mode", "r"),
    ("environment: {image: x:1}", "environment.image", {"cpu": "x:1", "cuda": "x:1", "rocm": "x:1"}),
    ("environment: {image: {rocm: x:1}}", "environment.image.rocm", "x:1"),
    (
        "environment: {environment_variables: ['A=b=c', B=]}",
        "environment.environment_variables.rocm",
        ["A=b=c", "B="],
    ),
    ("environment: {environment_variables: {cpu: [A=1]}}", "environment.environment_variables.cuda", []),
    ("environment: {ports: {web: 8080}}", "environment.ports.web", 8080),
    (
        "environment: {proxy_ports: [{proxy_port: 8080, proxy_tcp: true}]}",
        "environment.proxy_ports.0.unauthenticated",
        False,
    ),
    (
        "environment: {registry_auth: {username: a, password: b, auth: c, email: d}}",
        "environment.registry_auth.email",
        "d",
    ),
    (
        "environment: {add_capabilities: [CAP_A], drop_capabilities: [B_C]}",
        "environment.drop_capabilities",
        ["B_C"],
    ),
    ("environment: {pod_spec: {spec: {x: 1}}}", "environment.pod_spec.spec.x", 1),
    ("bind_mounts: [{host_path: /a, container_path: b}]", "bind_mounts.0.propagation", "rprivate"),
    # storage
    ("checkpoint_storage: {save_experiment_best: 2}", "checkpoint_storage.save_trial_latest", 1),
    (
        "checkpoint_storage: {type: shared_fs, host_path: /a, checkpoint_path: x}",
        "checkpoint_storage.checkpoint_path",
        "x",
    ),
    (
        "checkpoint_storage: {type: s3, bucket: b, endpoint_url: http://x}",
        "checkpoint_storage.endpoint_url",
        "http://x",
    ),
    (
        "checkpoint_storage: {type: azure, container: c, connection_string: s}",
        "checkpoint_storage.credential",
        None,
    ),
]


@pytest.mark.parametrize(("text", "path", "value"), TODAY)
def test_what_the_reference_allows_is_taken(text: str, path: str, value: object) -> None:
    if "optimizer.lr" in text:  # a dot in a name is a dot in a name
        parsed = parse_config(whole(text)).resolved()["hyperparameters"]
        assert parsed == {"optimizer.lr": {"type": "const", "val": 3}}
    else:
        assert value_at(text, path) == value


RULES: list[tuple[str, str]] = [
    ("version: 1", "version: must be 0"),
    ("version: '0'", "version: must be 0"),
    ("unknown: 1", "unknown: unknown field"),
    ("data: []", "data: must be a map"),
    ("workspace: a", "workspace: needs project"),
    ("scheduling_unit: 0", "scheduling_unit: must be at least 1"),
    ("max_restarts: -1", "max_restarts: must be at least 0"),
    ("checkpoint_policy: some", "checkpoint_policy: must be best"),
    ("min_validation_period: {batches: 1, epochs: 1}", "min_validation_period: must be a length"),
    ("min_validation_period: {batches: -1}", "min_validation_period.batches: must be"),
    ("min_checkpoint_period: 100", "min_checkpoint_period: must be a length"),
    ("reproducibility: {experiment_seed: -1}", "reproducibility.experiment_seed: must be at least 0"),
    ("profiling: {begin_on_batch: -1}", "profiling.begin_on_batch: must be at least 0"),
    ("optimizations: {mixed_precision: 'O4'}", "optimizations.mixed_precision: must be"),
    ("log_policies: [{name: a, pattern: x}, {name: a, pattern: y}]", "log_policies[1].name: the name 'a'"),
    ("log_policies: [{action: cancel_retries}]", "log_policies[0]: needs a name, or both"),
    ("retention_policy: {log_retention_days: 32768}", "retention_policy.log_retention_days: must be at most"),
    ("integrations: {webhooks: {webhook_id: [a]}}", "integrations.webhooks.webhook_id[0]: must be a whole"),
    ("pbs: {slots_per_node: 0}", "pbs.slots_per_node: must be at least 1"),
    ("hyperparameters: {a: {type: int, minval: 2, maxval: 1}}", "hyperparameters.a.maxval: must be above"),
    ("hyperparameters: {a: {b: {type: lin}}}", "hyperparameters.a.b.type: unknown type 'lin'"),
    (search("name: single, max_length: {batches: 0}"), "searcher.max_length.batches: must be"),
    (search("name: random, max_trials: 0, max_length: 1"), "searcher.max_trials: must be at least 1"),
    (
        search("name: grid, max_length: 1")
        + "\nhyperparameters: {n: {lr: {type: double, minval: 0, maxval: 1}}}",
        "hyperparameters.n.lr: needs count for the grid searcher; add `count:`",
    ),
    (search("name: async_halving, max_trials: 1, max_length: 1"), "searcher.num_rungs: is missing"),
    (
        search("name: async_halving, num_rungs: 2, max_trials: 1, divisor: 1, max_length: 1"),
        "searcher.divisor: must be above 1",
    ),
    (search("name: async_halving, num_rungs: 2, max_trials: 1"), "searcher: needs max_length, or max_time"),
    (search("name: adaptive_asha, max_trials: 1, max_time: 5"), "searcher: needs max_length, or max_time"),
    (
        search("name: adaptive_asha, max_trials: 1, time_metric: batches"),
        "searcher: needs max_length, or max_time",
    ),
    (
        search("name: adaptive_asha, max_trials: 1, max_length: 3, max_time: 3"),
        "searcher: needs max_length, or max_time",
    ),
    (search("name: adaptive_asha, max_trials: 1, mode: fast, max_length: 1"), "searcher.mode: must be"),
    (
        search("name: adaptive, max_length: 9, budget: 9"),
        "searcher.budget: must be above max_length, 9, not 9",
    ),
    (
        search("name: adaptive, max_length: 9, budget: {epochs: 99}"),
        "searcher.budget: is in epochs, but max_length is in batches",
    ),
    (
        search("name: sync_halving, num_rungs: 2, budget: 9") + "\nentrypoint: ./train.sh",
        "searcher: needs max_length",
    ),
    (
        search("name: adaptive_simple, max_trials: 9") + "\nentrypoint: ./train.sh",
        "searcher: needs max_length",
    ),
    ("resources: {weight: -1}", "resources.weight: must be at least 0"),
    ("resources: {priority: 0}", "resources.priority: must be at least 1"),
    ("resources: {slots: 1}", "resources.slots: unknown field of `resources`; write slots_per_trial"),
    ("checkpoint_storage: {type: gcs}", "checkpoint_storage.bucket: is missing"),
    ("checkpoint_storage: {type: directory}", "checkpoint_storage.container_path: is missing"),
    (
        "checkpoint_storage: {save_trial_latest: -1}",
        "checkpoint_storage.save_trial_latest: must be at least 0",
    ),
]


@pytest.mark.parametrize(("text", "problem"), RULES)
def test_what_the_reference_forbids_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(whole(text), source="c.yaml")
    (line,) = caught.value.lines
    assert line.split(": ", 1)[1].startswith(problem)
