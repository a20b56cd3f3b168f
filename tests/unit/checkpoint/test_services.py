"""Google Cloud Storage and Azure, each against a server of its protocol; S3 is in test_cloud.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.worker import Job, TransferWorker, check_writable, run_transfer
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.errors import EngineError
from determined._contract import checkpoints
from tests.clouds import KEY, Cloud, azure_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.storage import StorageConfig

LARGE = 70 << 20  # gcsfs sends 50 MB in one request, adlfs 64 MB


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with azure_server(monkeypatch) as made:
        yield made


def config(storage: dict[str, object]) -> ExperimentConfig:
    return config_from_mapping({"checkpoint_storage": storage}, defaults=LOCAL_DEFAULTS)


def checkpoint(root: Path, size: int = 1 << 20) -> str:
    with checkpoints.store(root, {"steps_completed": 1}) as (directory, uuid):
        (directory / "weights").write_bytes(bytes(range(256)) * (size // 256))
        (directory / "empty").touch()
        for number in range(60):
            (directory / f"small{number}").write_text("s" * number)
    return uuid


def fetched(uuid: str, where: StorageConfig, target: Path) -> set[str]:
    run_transfer(where, Job(do="fetch", uuid=uuid, root=str(target)))
    assert checkpoints.verify(target) == []
    return set(checkpoints.resources(target))


def test_a_file_larger_than_one_request_goes_there_and_comes_back(tmp_path: Path, cloud: Cloud) -> None:
    where, root = config(cloud.storage).checkpoint_storage, tmp_path / "here"
    uuid = checkpoint(root, LARGE)
    run_transfer(where, Job(do="upload", uuid=uuid, root=str(root)))
    start = f"{where.bucket_url}/{uuid}/".partition("://")[2].partition("/")[2]
    local = {str(path.relative_to(root / uuid)) for path in (root / uuid).rglob("*") if path.is_file()}
    assert cloud.names() == {start + name for name in local}
    assert fetched(uuid, where, tmp_path / "back") == set(checkpoints.resources(root / uuid))
    assert (tmp_path / "back" / "weights").read_bytes() == (root / uuid / "weights").read_bytes()


def test_an_upload_that_is_killed_is_finished_by_the_next(tmp_path: Path, cloud: Cloud) -> None:
    where, root = config(cloud.storage).checkpoint_storage, tmp_path / "here"
    uuid = checkpoint(root)
    job = Job(do="upload", uuid=uuid, root=str(root))
    cut = TransferWorker(where)
    cut.ask(job)
    while not cloud.names():
        cut.answer(wait=0.01)
    cut.close()
    left = {key.partition(f"/{uuid}/")[2] for key in cloud.names()}
    assert "manifest.json" not in left or left > set(checkpoints.resources(root / uuid))
    run_transfer(where, job)
    assert fetched(uuid, where, tmp_path / "back") == set(checkpoints.resources(root / uuid))


def test_a_bucket_that_is_not_there_is_named(cloud: Cloud) -> None:
    with pytest.raises(EngineError) as caught:
        check_writable(config(cloud.missing))
    assert "nolab" in str(caught.value)
    assert cloud.no_bucket in str(caught.value)
    assert "RequestId" not in str(caught.value)
    assert "check bucket, prefix and credentials" in caught.value.hint


def test_azure_takes_a_connection_string_too(azure: Cloud) -> None:
    way_in = f"BlobEndpoint={azure.url};AccountName=devstoreaccount1;AccountKey={KEY}"
    check_writable(config({"type": "azure", "container": "lab", "connection_string": way_in}))


def test_azure_takes_a_signature_in_place_of_a_key(azure: Cloud) -> None:
    from datetime import datetime, timedelta, timezone

    from azure.storage.blob import generate_container_sas

    until = datetime.now(timezone.utc) + timedelta(hours=1)
    signature = generate_container_sas(
        "devstoreaccount1", "lab", account_key=KEY, permission="rwdlc", expiry=until
    )
    check_writable(config({**azure.storage, "credential": signature}))


def test_a_wrong_key_of_azure_is_said(azure: Cloud) -> None:
    with pytest.raises(EngineError, match="failed to authenticate") as caught:
        check_writable(config({**azure.storage, "credential": "eA=="}))
    assert "RequestId" not in str(caught.value)
