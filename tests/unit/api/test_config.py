from __future__ import annotations

import pytest

from detbuild.api import config as configs
from detbuild.errors import ConfigError

CONFIG = """\
name: tiny
entrypoint: model_def:Tiny
searcher: {name: random, metric: loss, max_trials: 3, max_length: {batches: 5}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "const.yaml"
    path.write_text(CONFIG)
    return path


def test_a_checked_config_names_the_source_of_each_value(client, file):
    checked = configs.check(client, file, ["max_restarts=1"], (), show_secrets=False)
    assert (checked.shown["name"], checked.shown["max_restarts"]) == ("tiny", 1)
    assert checked.sources["name"] == f"{file}:1"
    assert checked.sources["max_restarts"] != "default"
    assert "name: tiny" in checked.text


def test_secrets_are_masked_unless_they_are_asked_for(client, file):
    file.write_text(f"{CONFIG}environment: {{environment_variables: [TOKEN=secret1]}}\n")
    assert "secret1" not in configs.check(client, file, (), (), show_secrets=False).text
    assert "secret1" in configs.check(client, file, (), (), show_secrets=True).text


def test_all_errors_are_reported_at_once(client, file):
    file.write_text(f"{CONFIG}max_restart: 1\nlabel: x\n")
    with pytest.raises(ConfigError, match=r"(?s)max_restart.*label"):
        configs.check(client, file, (), (), show_secrets=False)


def test_what_has_no_effect_is_warned_of(client, events, file):
    file.write_text(f"{CONFIG}workspace: mine\nproject: this\n")
    configs.check(client, file, (), (), show_secrets=False)
    assert any("workspace" in event.message for event in events)


def test_a_preview_counts_the_trials(client, file):
    planned = configs.preview(client, file, (), ())
    assert (planned.trials, planned.total, planned.unit) == (3, 15, "batches")


def test_a_template_is_below_a_config(client, file):
    (client.path / "templates").mkdir(parents=True)
    (client.path / "templates" / "mine.yaml").write_text("max_restarts: 2\nname: template\n")
    parsed, text = configs.read_config(file, below=configs.layers(client, ["mine"]))
    assert (parsed.name, parsed.max_restarts, text) == ("tiny", 2, CONFIG)


def test_a_map_is_a_config_too_and_a_local_one_may_lack_what_it_does_not_need():
    parsed, text = configs.read_config({"name": "x"}, local=True)
    assert (parsed.name, '"name": "x"' in text) == ("x", True)
    with pytest.raises(ConfigError):
        configs.read_config({"name": "x"})


def test_hyperparameters_are_sampled_by_the_seed():
    parsed = configs.local_config({"hyperparameters": {"lr": {"type": "double", "minval": 0, "maxval": 1}}})
    assert configs.sampled(parsed, 3) == configs.sampled(parsed, 3) != configs.sampled(parsed, 4)


def test_the_schema_knows_the_fields():
    assert "searcher" in configs.schema()["properties"]
