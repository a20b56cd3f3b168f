from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.host import HostFile
from detbuild.config.parse import parse_config
from detbuild.config.secrets import (
    SECRET,
    VARIABLES,
    is_secret,
    known_secrets,
    marks,
    mask,
    masked_for_sharing,
    may_hold_secrets,
    secrets_of_host,
    text_holds_secrets,
    values_in_script,
)
from detbuild.config.yaml import ConfigErrors
from detbuild.credentials import MASK

CANARY = "hunter2-c4n4ry"
MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SECRETS = [
    f"data: {{secrets: {{a: {CANARY}, b: [{CANARY}]}}}}",
    f"checkpoint_storage: {{type: s3, bucket: b, access_key: {CANARY}, secret_key: {CANARY}}}",
    f"checkpoint_storage: {{type: s3, bucket: b, endpoint_url: 'https://u:{CANARY}@minio'}}",
    f"checkpoint_storage: {{type: azure, container: c, connection_string: {CANARY}}}",
    f"checkpoint_storage: {{type: azure, container: c, account_url: u, credential: {CANARY}}}",
    f"checkpoint_storage: {{type: azure, container: c, account_url: 'https://a.net/?sv=1&sig={CANARY}'}}",
    "environment: {registry_auth: {username: X, password: X, auth: X, email: X}}".replace("X", CANARY),
    f"environment: {{registry_auth: {{identitytoken: {CANARY}, registrytoken: {CANARY}}}}}",
    f"environment: {{environment_variables: ['HARMLESS={CANARY}']}}",
    f"environment: {{environment_variables: {{gpu: ['HARMLESS={CANARY}']}}}}",
    f"environment: {{pod_spec: {{spec: {{containers: [{{env: [{{name: A, value: {CANARY}}}]}}]}}}}}}",
    f"integrations: {{pachyderm: {{dataset: {{token: {CANARY}}}}}}}",
    f"slurm: {{sbatch_args: ['--export=A={CANARY}']}}",
    f"pbs: {{pbsbatch_args: ['-v A={CANARY}']}}",
    f"security: {{a: {CANARY}}}",
    f"tensorboard_storage: {{type: s3, secret_key: {CANARY}}}",
    f"data_layer: {{secret_key: {CANARY}}}",
    f"description: see https://token:{CANARY}@git.example/x",
    f"data: {{url: 'https://me:{CANARY}@data.example/set'}}",
    f"hyperparameters: {{weights: 'https://{CANARY}@hub.example/w.pt'}}",
]
PRIVATE = [
    f"data: {{path: /home/{CANARY}}}",
    f"bind_mounts: [{{host_path: /srv/{CANARY}, container_path: data}}]",
    f"checkpoint_storage: {{type: shared_fs, host_path: /srv/{CANARY}}}",
    f"checkpoint_storage: {{type: s3, bucket: {CANARY}, prefix: {CANARY}}}",
    f"resources: {{devices: ['/dev/{CANARY}:/dev/x']}}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_shown_neither_masked_nor_by_repr(text: str) -> None:
    config = parse_config(MINIMAL + text)
    assert CANARY in json.dumps(config.resolved())
    assert CANARY not in json.dumps(config.masked())
    assert CANARY not in repr(config) or "://" in text
    assert MASK in json.dumps(config.masked())
    assert text_holds_secrets(MINIMAL + text, ExperimentConfig)
    assert any(CANARY in value for value in known_secrets(config.resolved(), ExperimentConfig).values)


@pytest.mark.parametrize("text", [*SECRETS, *PRIVATE])
def test_what_is_passed_on_has_neither_secrets_nor_paths_of_the_host(text: str) -> None:
    assert CANARY not in json.dumps(masked_for_sharing(parse_config(MINIMAL + text).resolved()))


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    config = parse_config(
        MINIMAL + "data: {url: https://x/@y}\nenvironment: {registry_auth: {serveraddress: r.example.com}}\n"
    )
    assert config.masked() == config.resolved()
    assert not text_holds_secrets(MINIMAL + "data: {secret: x}", ExperimentConfig)


def test_what_is_passed_on_keeps_what_a_reader_needs() -> None:
    text = (
        "name: study\nlabels: [a]\nhyperparameters: {lr: {type: log, minval: -4, maxval: -1, base: 10}, "
        "net: {depth: 3, kind: resnet}}\nenvironment: {environment_variables: [A=1, B=], image: x:1}\n"
    )
    config = parse_config(text + MINIMAL).resolved()
    shown = masked_for_sharing(config)
    for field in ("name", "labels", "hyperparameters", "searcher", "entrypoint", "reproducibility"):
        assert shown[field] == config[field]
    assert shown["environment"]["environment_variables"]["cpu"] == [f"A={MASK}", "B="]
    assert shown["environment"]["image"]["cpu"] == "x:1"


def test_a_command_is_not_passed_on_but_a_class_is() -> None:
    command = parse_config(MINIMAL.replace("a:B", f"python train.py --key {CANARY}"))
    assert masked_for_sharing(command.resolved())["entrypoint"] == MASK


def test_every_mark_is_of_a_field() -> None:
    found = marks(ExperimentConfig)
    assert found["environment", "registry_auth", "password"] is SECRET
    assert found["environment", "environment_variables"] is VARIABLES
    assert found["checkpoint_storage", "credential"] is SECRET
    assert marks(HostFile)["task_container_defaults", "startup_hook"] is SECRET


def test_a_field_below_which_secrets_may_be_is_known() -> None:
    assert may_hold_secrets(("environment",), ExperimentConfig)
    assert may_hold_secrets(("data", "secrets", "x"), ExperimentConfig)
    assert not may_hold_secrets(("searcher", "metric"), ExperimentConfig)
    assert not is_secret(("data", "x"), ExperimentConfig)


@pytest.mark.parametrize(
    "text",
    [
        f'checkpoint_storage:\n  secret_key: "{CANARY}"\n',
        f"x: &k {CANARY}\ncheckpoint_storage: {{secret_key: *k}}",
        f"base: &b {{secret_key: {CANARY}}}\ncheckpoint_storage: {{<<: *b}}",
        f"a: 1\n---\ndata: {{secrets: {{a: {{b: {CANARY}}}}}}}",
        f"# index https://u:{CANARY}@host/simple",
    ],
)
def test_secrets_are_found_wherever_they_are_written(text: str) -> None:
    assert text_holds_secrets(text, ExperimentConfig)


@pytest.mark.parametrize(
    "text",
    [
        f"environment: {{environment_variables: [{CANARY}]}}",
        f"environment: {{environment_variables: [{{A: {CANARY}}}]}}",
        f"environment: {{environment_variables: ['1A={CANARY}']}}",
        f"environment: {{environment_variables: {CANARY}}}",
        f"environment: {{environment_variables: {{cpu: {CANARY}}}}}",
        f"environment: {{environment_variables: [A={CANARY}]}}\nlabels: [{{a: {CANARY}}}]\nname: [{CANARY}]",
        f"environment: {{registry_auth: {{password: [{CANARY}]}}}}",
        f"environment: {{registry_auth: {CANARY}}}",
        f"environment: {{image: 'https://u:{CANARY}@r.example/x'}}",
        f"checkpoint_storage: {{type: s3, bucket: b, access_key: {{a: {CANARY}}}}}",
        f"max_restarts: 'https://u:{CANARY}@host'",
    ],
)
def test_an_error_does_not_quote_a_secret(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(MINIMAL + text)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        f"environment.environment_variables=[{CANARY}",
        f"environment.registry_auth.password=[{CANARY}]",
        f"environment.environment_variables.x={CANARY}",
        f"data=[https://u:{CANARY}@host]",
    ],
)
def test_nor_does_an_error_of_an_override(override: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(MINIMAL, overrides=[override])
    assert CANARY not in str(caught.value)


@given(secret=st.text(min_size=8, max_size=30).filter(lambda text: text.strip()), rest=st.text(max_size=20))
def test_a_known_secret_is_found_in_every_spelling(secret: str, rest: str) -> None:
    config = {"environment": {"environment_variables": {"cpu": [f"A={secret}"]}}}
    known = known_secrets(config, ExperimentConfig)
    for spelled in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")):
        assert spelled in MASK or spelled not in known.hide(f"{rest}{spelled}{rest}").replace(MASK, "")


def test_short_values_are_hidden_as_words_only_and_plain_ones_never() -> None:
    config = {"environment": {"environment_variables": ["PIN=abcd", "DEBUG=true", "N=100", "B=x"]}}
    known = known_secrets(config, ExperimentConfig)
    assert known.hide("abcd abcde true 100 x") == f"{MASK} abcde true 100 x"


def test_secrets_of_the_host_are_found_by_name_and_in_urls() -> None:
    found = secrets_of_host({"WANDB_API_KEY": "k1-value", "PIP_INDEX_URL": "https://u:pw-1@x", "HOME": "/h"})
    assert {"k1-value", "u:pw-1", "pw-1"} <= set(found)
    assert "/h" not in found


def test_values_of_a_script_are_found() -> None:
    found = values_in_script('export TOKEN="s3cr3t value"\nA=b-c; curl https://u:p-w@host')
    assert {"s3cr3t value", "b-c", "p-w"} <= set(found)


def test_a_mask_keeps_the_shape_of_the_values() -> None:
    assert mask({"data": {"secrets": {"a": [1, None]}}}, ExperimentConfig) == {
        "data": {"secrets": {"a": [MASK, None]}}
    }
