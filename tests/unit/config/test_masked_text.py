from __future__ import annotations

import pytest

from detbuild.config.masked_text import masked_text, secret_values


@pytest.mark.parametrize(
    "text",
    [
        "checkpoint_storage: {type: s3, secret_key: s3cr3t}",
        'checkpoint_storage:\n  secret_key: "s3\\u0063r3t"\n',
        "x: &k s3cr3t\ncheckpoint_storage: {secret_key: *k}",
        "base: &b {secret_key: s3cr3t}\ncheckpoint_storage: {<<: *b}",
        "data: {secrets: {a: {b: s3cr3t}}}",
    ],
)
def test_secrets_are_masked_where_they_are_written(text):
    shown = masked_text(text)
    assert "r3t" not in shown
    assert "********" in shown


def test_all_else_stays_as_written():
    text = "# a comment\nname:   x   # kept\n"
    assert masked_text(text) == text


def test_text_that_is_no_yaml_is_not_shown():
    assert "s3cr3t" not in masked_text("secret_key: [s3cr3t")


def test_values_of_secrets_and_of_variables_named_like_them_are_found():
    config = {
        "checkpoint_storage": {"secret_key": "s3cr3t-value", "access_key": "abc"},
        "environment": {"environment_variables": {"cpu": ["WANDB_API_KEY=0123456789", "MODE=training"]}},
    }
    assert secret_values(config) == ("s3cr3t-value", "0123456789")
