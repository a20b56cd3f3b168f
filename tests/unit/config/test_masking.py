from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config

MINIMAL = "entrypoint: a:B\nsearcher: {name: single, metric: loss, max_length: {epochs: 1}}\n"
SECRETS = [
    "data: {secrets: {a: hunter2, b: [hunter2]}}",
    "checkpoint_storage: {type: s3, bucket: b, access_key: hunter2, secret_key: hunter2}",
    "checkpoint_storage: {type: azure, container: c, connection_string: hunter2}",
    "checkpoint_storage: {type: azure, container: c, account_url: u, credential: hunter2}",
    "environment: {registry_auth: {username: hunter2, password: hunter2, auth: hunter2, email: hunter2}}",
    "environment: {registry_auth: {identitytoken: hunter2, registrytoken: hunter2}}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_shown_neither_masked_nor_by_repr(text: str) -> None:
    config = parse_config(MINIMAL + text)
    assert "hunter2" in str(config.resolved())
    assert "hunter2" not in str(config.masked())
    assert "hunter2" not in repr(config)
    assert "********" in str(config.masked())


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    config = parse_config(
        MINIMAL + "data: {url: x}\nenvironment: {registry_auth: {serveraddress: r.example.com}}\n"
    )
    assert config.masked() == config.resolved()
