"""The mistakes people make in YAML: each is told by its place and field, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.config.environment import Environment
from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import _sections
from detbuild.config.parse import config_from_mapping, load_config, parse_config
from detbuild.config.searcher import METHODS
from detbuild.config.yaml import SECTIONS, ConfigErrors

GOOD = "searcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def last_line(text: str | bytes) -> str:
    path = Path("c.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    assert all(len(line) < 200 for line in caught.value.lines)
    return caught.value.lines[-1]


def check(line: str, place: str, *words: str) -> None:
    assert line.startswith(f"c.yaml:{place}: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("text", "place", "what", "hint"),
    [
        ("searcher:\n\tname: single\n", "2:1", "tab in the indentation", "indent with spaces"),
        ("searcher:\n  a: b\n  \tc: d\n", "3:3", "tab in the indentation", "indent with spaces"),
        ("name: @home\n", "1:7", "text cannot begin with `@`", "put it in quotes"),
        ("name: %5\n", "1:7", "text cannot begin with `%`", "put it in quotes"),
        ("name: 'it is\nx: 1\n", "1:7", "this quote is never closed", "close it"),
        ('name: "C:\\Users\\x"\n', "1:12", "invalid backslash escape", "in single quotes"),
        ("data: {a: 1\nb: 1\n", "2:2", "the bracket opened on line 1", "close it"),
        ("description: lr: 0.1\n", "1:16", "mapping values are not allowed", "quote text with `: `"),
        ("entrypoint:a:B\nname: x\n", "2:5", "mapping values are not allowed", "the space after `:` above"),
        ("name: 'it's'\n", "1:11", "did not find expected key", "one kind of quote in the other"),
        ("a: !!python/object:os.system [x]\n", "1:4", "python/object:os.system' is not allowed", "remove it"),
        ("a: 1\na: 2\n", "2:1", "is given twice, first on line 1", "remove one of the two"),
        (b"name: a\nlabels: [\xe9]\n", "2:10", "is not UTF-8 text", "save it as UTF-8"),
    ],
)
def test_what_is_no_yaml_is_told_in_words_of_the_writer(
    text: str | bytes, place: str, what: str, hint: str
) -> None:
    check(last_line(text), place, what, hint)


@pytest.mark.parametrize(
    ("text", "place", "field", "hint"),
    [
        ("max_restarts: '5'", "2:15", "max_restarts", "write `5`"),
        ("max_restarts: 1_000", "2:15", "max_restarts", "write `1000`"),
        ("max_restarts: 1,000", "2:15", "max_restarts", "write `1000`"),
        ("max_restarts: five", "2:15", "max_restarts", "must be a whole number, not 'five'"),
        ("max_restarts: 5.5", "2:15", "max_restarts", "must be a whole number, not 5.5"),
        ("version: false", "2:10", "version", "must be 0, not false"),
        ("maxRestarts: 3", "2:1", "maxRestarts", "did you mean `max_restarts`?"),
        ("max-restarts:", "2:1", "max-restarts", "did you mean `max_restarts`?"),
        ("slots_per_trial: 2", "2:1", "slots_per_trial", "`resources.slots_per_trial`?"),
        ("resources:\nslots_per_trial: 2", "2:1", "resources", "is empty; indent the lines below it"),
        ("resources: {shm: 1}", "2:13", "resources.shm", "did you mean `shm_size`?"),
        ("environment: {variables: [A=1]}", "2:15", "environment.variables", "`environment_variables`?"),
        ("resources: {shm_size: 1 i}", "2:23", "resources.shm_size", "a number with k, m, g, t or p"),
        ("resources: {shm_size: 4 q}", "2:23", "resources.shm_size", "not a valid size: '4 q'"),
        ("labels:\n  -a\n  -b", "3:3", "labels", "put a space after each `-`"),
        ("labels: a", "2:9", "labels", "write `[a]`"),
        ("name: 5", "2:7", "name", "put it in quotes"),
        ("debug: yes", "2:8", "debug", "write `true`"),
        ("hyperparameters:\n  - lr: 1", "3:3", "hyperparameters", "remove the `- ` before its keys"),
        ("bind_mounts: {host_path: /a}", "2:14", "bind_mounts", "put `- ` before its first key"),
        ("bind_mounts: [/a:/b:ro]", "2:15", "bind_mounts[0]", "`{host_path: /a, container_path: /b}`"),
        ("environment: {environment_variables: {A: 1}}", "2:39", "variables.A", "write a list: `[A=...]`"),
        ("hyperparameters: {a: {type: float}}", "2:29", "hyperparameters.a.type", "did you mean `double`?"),
        ("checkpoint_storage: {bucket: b}", "2:22", "checkpoint_storage.bucket", "belongs to type s3 or gcs"),
        ("checkpoint_storage: {name: s3}", "2:22", "checkpoint_storage.name", "did you mean `type`?"),
    ],
)
def test_a_slip_is_told_with_what_to_do(text: str, place: str, field: str, hint: str) -> None:
    check(last_line(f"entrypoint: a:B\n{text}\n{GOOD}"), place, f"{field}: ", hint)


@pytest.mark.parametrize(
    ("searcher", "place", "field", "hint"),
    [
        ("single", "1:11", "searcher", "write `name: single` below it"),
        ("{type: single, metric: l}", "1:11", "searcher.name", "rename `type` to `name`"),
        ("{nam: single, metric: l}", "1:11", "searcher.name", "rename `nam` to `name`"),
        ("{name: asha, metric: l}", "1:18", "searcher.name", "did you mean `adaptive_asha`?"),
        ("{name:single, metric: l}", "1:12", "searcher.'name:single'", "put a space after its `:`"),
        (
            "{name: single, metric: l, max_trials: 3}",
            "1:37",
            "searcher.max_trials",
            "belongs to name random or",
        ),
        ("{name: single, metric: l, max_length: {epoch: 5}}", "1:50", "max_length.epoch", "{epochs: 100}"),
        ("{name: single, metric: l, max_length: 5 epochs}", "1:49", "max_length", "{epochs: 100}"),
        ("{name: single, metric: l, smaller_is_better: no}", "1:56", "smaller_is_better", "write `false`"),
    ],
)
def test_a_slip_in_the_searcher_is_told_with_what_to_do(
    searcher: str, place: str, field: str, hint: str
) -> None:
    check(last_line(f"searcher: {searcher}\nentrypoint: a:B\n"), place, f"{field}: ", hint)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "searcher:\nname: single\nmetric: loss\n",
            ["c.yaml:2:10: searcher: is empty; indent the lines below it"],
        ),
        (
            "name: a\nsearcher:\nname: single\nmetric: loss\n",
            ["c.yaml:3:1: searcher: is empty; indent the lines below it"],
        ),
        (
            "searcher:\n  name: single\n  metric: loss\n  max_length:\n  batches: 3\n",
            ["c.yaml:5:3: searcher.max_length: is empty; indent the lines below it"],
        ),
        (
            f"{GOOD}hyperparameters:\nlr: 0.1\nlayers: 2\n",
            ["c.yaml:3:1: hyperparameters: is empty; indent the lines below it"],
        ),
        (
            "name: a\nname: b\nsearcher:\n",
            ["c.yaml:3:1: name: is given twice, first on line 2; remove one of the two"],
        ),
    ],
)
def test_lines_that_are_not_indented_are_told_by_the_field_above(text: str, lines: list[str]) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(f"entrypoint: a:B\n{text}", source="c.yaml")
    assert list(caught.value.lines) == lines


def test_every_field_that_holds_others_is_known_to_the_reader_of_yaml() -> None:
    held = {
        name
        for model in (ExperimentConfig, Environment, *METHODS.values())
        for name, field in model.model_fields.items()
        if next(_sections(field), None)
    }
    assert held - SECTIONS <= {
        *("log_policies", "integrations", "retention_policy", "slurm", "pbs"),
        *("devices", "proxy_ports", "drop_capabilities", "add_capabilities"),
    }


def test_every_rule_that_is_broken_is_told_next_to_every_wrong_field() -> None:
    text = (
        "entrypoint: a:B\n"
        "workspace: w\n"
        "searcher: {name: grid, metric: loss, source_trial_id: 1, source_checkpoint_uuid: a}\n"
        "resources: {max_slots: 1, slots_per_trial: 2, weight: -1}\n"
        "hyperparameters:\n"
        "  {a: {type: int, minval: 1, maxval: 3}, b: {c: {type: double, minval: 1, maxval: 0}}}\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, source="c.yaml")
    assert [line.split(": ")[1] for line in caught.value.lines] == [
        *("workspace", "searcher", "searcher.source_checkpoint_uuid", "resources.max_slots"),
        *("resources.weight", "hyperparameters.a", "hyperparameters.b.c", "hyperparameters.b.c.maxval"),
    ]


FREE_TO_BREAK: list[tuple[str, dict[str, object]]] = [
    ("workspace", {"workspace": "w"}),
    ("searcher", {"searcher": {"name": "single", "metric": "l"}}),
    (
        "searcher.source_checkpoint_uuid",
        {"searcher": {"name": "single", "metric": "l", "source_trial_id": 1, "source_checkpoint_uuid": "a"}},
    ),
    ("searcher.budget", {"searcher": {"name": "adaptive", "metric": "l", "max_length": 5, "budget": 5}}),
    ("resources.max_slots", {"resources": {"max_slots": 1, "slots_per_trial": 2}}),
    ("resources.weight", {"resources": {"weight": -1}}),
    ("max_restarts", {"max_restarts": "x"}),
    ("nonsense", {"nonsense": 1}),
    ("hyperparameters.a.minval", {"hyperparameters": {"a": {"type": "double", "maxval": 1}}}),
]


@given(st.lists(st.sampled_from(FREE_TO_BREAK), unique_by=lambda one: next(iter(one[1])), min_size=1))
def test_no_finding_hides_another(broken: list[tuple[str, dict[str, object]]]) -> None:
    whole = {"entrypoint": "a:B", "searcher": {"name": "single", "metric": "l", "max_length": 1}}
    for _, values in broken:
        whole |= values
    with pytest.raises(ConfigErrors) as caught:
        config_from_mapping(whole)
    told = {line.split(": ")[1] for line in caught.value.lines}
    assert {field for field, _ in broken} <= told


def test_what_other_readers_of_yaml_take_for_something_else_is_what_it_looks_like() -> None:
    path = Path("c.yaml")
    path.write_text(f"entrypoint: a:B\nname: no\nhyperparameters: {{lr: 1e-3}}\nmax_restarts: 1e1\n{GOOD}")
    config = load_config(path)
    assert (config.name, config.max_restarts) == ("no", 10)
    assert config.resolved()["hyperparameters"] == {"lr": {"type": "const", "val": 0.001}}
