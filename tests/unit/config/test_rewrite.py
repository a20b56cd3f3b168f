from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.config import rewrite
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import _sections
from detbuild.config.parse import parse_config
from detbuild.config.rewrite import IGNORED_FIELDS, NOT_IMPLEMENTED, warnings_for
from tests.unit.config.configs import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel


TEXT = (
    "entrypoint: a:B\n"
    "searcher: {name: random, metric: acc, smaller_is_better: false, max_trials: 9, max_length: 9}\n"
    "hyperparameters: {b: {type: int, minval: 1, maxval: 9}, a: 1}\n"
    "checkpoint_storage: {type: shared_fs, host_path: /data, save_trial_best: 3}\n"
)


def test_a_test_is_one_batch_without_restart_of_which_nothing_is_kept() -> None:
    config = parse_config(TEXT + "description: mnist\nreproducibility: {experiment_seed: 7}\n")
    resolved = rewrite.test_mode(config).resolved()
    hparams = resolved["hyperparameters"]
    assert isinstance(hparams, dict)
    assert resolved == {
        **config.resolved(),
        "description": "[test-mode] mnist",
        "scheduling_unit": 1,
        "min_validation_period": {"batches": 1},
        "max_restarts": 0,
        "searcher": {
            "name": "single",
            "metric": "acc",
            "smaller_is_better": False,
            "source_trial_id": None,
            "source_checkpoint_uuid": None,
            "max_length": {"batches": 1},
        },
        "hyperparameters": {"a": {"type": "const", "val": 1}, "b": hparams["b"]},
        "checkpoint_storage": {
            **config.checkpoint_storage.model_dump(),
            "save_experiment_best": 0,
            "save_trial_best": 0,
            "save_trial_latest": 0,
        },
    }
    assert hparams["b"]["type"] == "const"
    assert 1 <= hparams["b"]["val"] <= 9


def test_a_test_without_description_is_named_as_one() -> None:
    assert rewrite.test_mode(parse_config(TEXT)).description == "[test-mode]"


def test_the_config_is_left_as_it_was() -> None:
    config = parse_config(TEXT)
    rewrite.test_mode(config)
    rewrite.completed(config, seed=5)
    assert config == parse_config(TEXT)


def test_a_submission_fills_seed_and_name() -> None:
    filled = rewrite.completed(parse_config(TEXT), seed=(1 << 32) + 5)
    assert filled.reproducibility.experiment_seed == 5
    assert filled.name == "Experiment (fond-jade-ibex)"


def test_a_seed_and_a_name_that_are_given_stay() -> None:
    config = parse_config(TEXT + "name: mine\ndescription: d\nreproducibility: {experiment_seed: 0}\n")
    assert rewrite.completed(config, seed=5) == config


def test_the_description_is_the_name_where_there_is_none() -> None:
    assert rewrite.completed(parse_config(TEXT + "description: mnist\n"), seed=5).name == "mnist"


MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
READ = {
    "version",
    "name",
    "description",
    "labels",
    "data",
    "entrypoint",
    "hyperparameters",
    "log_policies",
    "searcher.name",
    "searcher.metric",
    "searcher.smaller_is_better",
    "searcher.max_length",
    "searcher.source_checkpoint_uuid",
    "searcher.source_trial_id",
    "resources.slots_per_trial",
    "resources.shm_size",
    "resources.memory",
    "resources.cpus",
    "resources.max_slots",
    "resources.priority",
    "resources.weight",
    "resources.devices",
    "environment.image",
    "environment.environment_variables",
    "environment.ports",
    "environment.force_pull_image",
    "environment.registry_auth",
    "environment.add_capabilities",
    "environment.drop_capabilities",
    "environment.read_only_root",
    "bind_mounts",
    "checkpoint_storage.type",
    "checkpoint_storage.save_experiment_best",
    "checkpoint_storage.save_trial_best",
    "checkpoint_storage.save_trial_latest",
    "checkpoint_storage.host_path",
    "checkpoint_storage.bucket",
    "checkpoint_storage.prefix",
    "checkpoint_storage.access_key",
    "checkpoint_storage.secret_key",
    "checkpoint_storage.endpoint_url",
    "checkpoint_storage.container",
    "checkpoint_storage.connection_string",
    "checkpoint_storage.account_url",
    "checkpoint_storage.credential",
    "checkpoint_storage.storage_path",
    "checkpoint_storage.container_path",
    "checkpoint_storage.propagation",
    "checkpoint_policy",
    "min_validation_period",
    "min_checkpoint_period",
    "perform_initial_validation",
    "preflight_validation",
    "records_per_epoch",
    "scheduling_unit",
    "max_restarts",
    "reproducibility.experiment_seed",
    "optimizations.aggregation_frequency",
    "optimizations.mixed_precision",
    "optimizations.average_aggregated_gradients",
    "optimizations.average_training_metrics",
    "preemption_timeout",
    "exit_timeout",
    "debug",
}
SAID_BY_ITSELF = {"data_layer"}
OF_ANOTHER_SEARCHER = {"searcher.train_stragglers"}
# Search methods have tests of their own.
AS_A_WHOLE = {"searcher": {"Single"}}


def paths() -> Iterator[str]:
    for name, field in ExperimentConfig.model_fields.items():
        sections: list[type[BaseModel]] = [
            section
            for section in _sections(field)
            if section.__name__ in AS_A_WHOLE.get(name, {section.__name__})
        ]
        if sections and name not in {*READ, *NOT_IMPLEMENTED, *IGNORED_FIELDS}:
            yield from (f"{name}.{key}" for section in sections for key in section.model_fields)
        else:
            yield name


def test_every_field_is_read_or_said_to_have_no_effect() -> None:
    assert (
        set(paths())
        == (READ | SAID_BY_ITSELF | set(NOT_IMPLEMENTED) | set(IGNORED_FIELDS)) - OF_ANOTHER_SEARCHER
    )


def test_no_field_is_in_two_tables() -> None:
    tables = [*READ, *NOT_IMPLEMENTED, *IGNORED_FIELDS]
    assert len(tables) == len(set(tables))


def test_a_config_that_is_acted_on_gives_no_warning() -> None:
    assert warnings_for(parse_config(MINIMAL + "debug: true\nresources: {slots_per_trial: 0}\n")) == ()


def test_a_field_set_to_its_default_gives_no_warning() -> None:
    text = "profiling: {enabled: false}\nworkspace: ''\nlog_policies: []\nresources: {weight: 1}\n"
    assert warnings_for(parse_config(MINIMAL + text)) == ()


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "profiling: {enabled: true}\ncheckpoint_storage: {save_trial_best: 5}",
            ["accepted, but not implemented yet: profiling"],
        ),
        (
            "checkpoint_storage: {type: shared_fs, host_path: /d, container_path: /c}",
            ["ignored, no effect on a single host: checkpoint_storage.container_path"],
        ),
        (
            "slurm: {gpu_type: a}\nworkspace: w\nproject: p\nresources: {resource_pool: r}",
            ["ignored, no effect on a single host: workspace, project, resources.resource_pool, slurm"],
        ),
        (
            "log_policies: [{name: CUDA OOM}]\ninternal: {}",
            [
                "ignored, no effect on a single host: internal",
            ],
        ),
    ],
)
def test_one_warning_names_what_comes_later_and_one_what_never_will(text: str, messages: list[str]) -> None:
    assert [warning.message for warning in warnings_for(parse_config(MINIMAL + text))] == messages


def test_a_range_without_a_type_is_said_to_be_none() -> None:
    text = "hyperparameters: {a: {minval: 0, maxval: 1}, b: {c: {vals: [1, 2]}, d: {e: 1}}}\n"
    (warning,) = warnings_for(parse_config(MINIMAL + text))
    assert warning.message == "a map without `type` is treated as constants: hyperparameters.a, b.c"
    assert "add `type: double`" in warning.hint


def test_stragglers_that_were_not_to_be_trained_are_said_to_be() -> None:
    budget = "{name: adaptive, metric: loss, max_length: 5, budget: 9, train_stragglers: false}"
    config = parse_config(f"entrypoint: a:B\nsearcher: {budget}\n")
    assert [warning.message for warning in warnings_for(config)] == [
        "ignored, no effect on a single host: searcher.train_stragglers"
    ]


@pytest.mark.parametrize(
    ("range_", "words"),
    [
        ("{type: log, base: 10, minval: 0.0001, maxval: 0.1}", "searches 1.00023 to 1.25893"),
        ("{type: log, base: 10, minval: 0.00001, maxval: 10}", "searches 1.00002 to 1e+10"),
        ("{type: log, base: 10, minval: 16, maxval: 256}", "searches 1e+16 to 1e+256"),
        ("{type: log, base: 10, minval: -4, maxval: -1}", ""),
        ("{type: log, base: 10, minval: 0, maxval: 3}", ""),
        ("{type: log, base: 2, minval: 3, maxval: 8}", ""),
        ("{type: double, minval: 0.0001, maxval: 0.1}", ""),
    ],
)
def test_bounds_of_a_log_range_that_look_like_values_are_asked_about(range_: str, words: str) -> None:
    text = MINIMAL + f"hyperparameters: {{net: {{lr: {range_}}}}}\n"
    found = [str(warning.message) for warning in warnings_for(parse_config(text))]
    assert [message for message in found if "net.lr: bounds" in message] == found
    assert [words in message for message in found] == ([True] if words else [])


def test_the_hint_of_such_a_range_searches_what_its_bounds_say() -> None:
    text = "hyperparameters: {lr: {type: log, base: 10, minval: 0.001, maxval: 0.1}}\n"
    (warning,) = warnings_for(parse_config(MINIMAL + text))
    assert warning.hint == "write `minval: -3` and `maxval: -1` to search 0.001 to 0.1"


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("[0.1, 0.01]", True),
        ("[adam, sgd]", True),
        ("[true, false]", True),
        ("[64, 64]", False),
        ("[64]", False),
        ("[]", False),
        ("[[1, 2], [3, 4]]", False),
        ("{type: const, val: [0.1, 0.01]}", False),
        ("{type: categorical, vals: [0.1, 0.01]}", False),
        ("text", False),
    ],
)
def test_a_bare_list_that_reads_as_choices_is_asked_about(value: str, asked: bool) -> None:
    found = warnings_for(parse_config(MINIMAL + f"hyperparameters: {{a: {{lr: {value}}}}}\n"))
    assert [warning.message for warning in found] == (
        ["a list without `type` is treated as one constant: hyperparameters.a.lr"] if asked else []
    )


def test_the_hints_of_such_a_list_leave_no_warning() -> None:
    (warning,) = warnings_for(parse_config(MINIMAL + "hyperparameters: {lr: [0.1, 0.01]}\n"))
    for hint in ("lr: {type: categorical, vals: [0.1, 0.01]}", "lr: {type: const, val: [0.1, 0.01]}"):
        assert hint.removeprefix("lr: ") in warning.hint
        assert warnings_for(parse_config(MINIMAL + f"hyperparameters: {{{hint}}}\n")) == ()


def test_the_data_sets_of_a_data_layer_are_said_not_to_be_cached() -> None:
    (warning,) = warnings_for(parse_config(whole("data_layer: {type: shared_fs}")))
    assert warning.message.startswith("data_layer: data sets are not cached")
