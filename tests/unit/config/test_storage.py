from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from tests.unit.config.configs import MINIMAL, refusal, taken


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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
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
    ],
)
def test_a_broken_rule_of_a_storage_is_told_by_its_path(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)
