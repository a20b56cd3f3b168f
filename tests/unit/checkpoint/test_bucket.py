from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from detbuild.checkpoint import bucket as module
from detbuild.checkpoint.bucket import (
    Address,
    CheckpointBucket,
    address_of,
    bucket_of,
    file_system,
    open_bucket,
)
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.config.storage import S3, Azure, Gcs, StorageConfig
from detbuild.errors import ConfigError


def storage_of(**storage: object) -> StorageConfig:
    return config_from_mapping({"checkpoint_storage": storage}, defaults=LOCAL_DEFAULTS).checkpoint_storage


def address(**storage: object) -> Address:
    found = storage_of(**storage)
    assert isinstance(found, S3 | Gcs | Azure)
    return address_of(found)


def test_s3_is_given_what_the_config_says_of_it() -> None:
    found = address(
        type="s3", bucket="lab", prefix="/a/b/", access_key="me", secret_key="x", endpoint_url="http://h"
    )
    assert (found.protocol, found.root) == ("s3", "lab/a/b")
    options = {
        name: value
        for name, value in found.options.items()
        if name not in {"config_kwargs", "max_concurrency"}
    }
    assert options == {"key": "me", "secret": "x", "endpoint_url": "http://h"}
    assert "'x'" not in repr(found)


def test_what_the_config_does_not_say_is_left_to_the_library() -> None:
    found = address(type="s3", bucket="lab")
    assert list(found.options) == ["config_kwargs", "max_concurrency"]
    assert address(type="gcs", bucket="lab", prefix="nets") == Address(
        protocol="gs", root="lab/nets", extra="gcs"
    )


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ({"connection_string": "AccountKey=x"}, {"connection_string": "AccountKey=x"}),
        (
            {"account_url": "https://lab.blob.core.windows.net", "credential": "x=="},
            {
                "connection_string": "BlobEndpoint=https://lab.blob.core.windows.net;"
                "AccountName=lab;AccountKey=x=="
            },
        ),
        (
            {"account_url": "http://127.0.0.1:10000/lab/", "credential": "x"},
            {"connection_string": "BlobEndpoint=http://127.0.0.1:10000/lab;AccountName=lab;AccountKey=x"},
        ),
        (
            {"account_url": "lab.blob.core.windows.net", "credential": "?sv=1&sig=x"},
            {
                "connection_string": "BlobEndpoint=https://lab.blob.core.windows.net;"
                "SharedAccessSignature=sv=1&sig=x"
            },
        ),
        (
            {"account_url": "https://lab.blob.core.windows.net/?sv=1&sig=x"},
            {
                "connection_string": "BlobEndpoint=https://lab.blob.core.windows.net;"
                "SharedAccessSignature=sv=1&sig=x"
            },
        ),
        (
            {"account_url": "https://lab.blob.core.windows.net"},
            {"account_name": "lab", "account_host": "lab.blob.core.windows.net", "anon": False},
        ),
    ],
)
def test_azure_is_given_one_way_in(said: dict[str, object], options: dict[str, object]) -> None:
    assert address(type="azure", container="lab", **said) == Address(
        protocol="abfs", root="lab", extra="azure", options={"max_concurrency": 3, **options}
    )


def test_checkpoints_of_other_storages_stay_on_this_host() -> None:
    assert bucket_of(storage_of()) is None
    assert bucket_of(storage_of(type="shared_fs", host_path="/srv")) is None
    assert bucket_of(storage_of(type="directory", container_path="/srv")) is None
    assert bucket_of(storage_of(type="gcs", bucket="lab")) == storage_of(type="gcs", bucket="lab")


@pytest.mark.parametrize(
    ("protocol", "library", "extra"),
    [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("abfs", "adlfs", "azure")],
)
def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, protocol: str, library: str, extra: str
) -> None:
    # fsspec.registry is a mapping of this name, too
    monkeypatch.delitem(import_module("fsspec.registry")._registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match="a library that is not installed") as caught:
        file_system(Address(protocol=protocol, root="lab", extra=extra))
    assert caught.value.hint == f"pip install 'detbuild[{extra}]'"


@pytest.mark.parametrize(
    ("storage", "library"),
    [
        ({"type": "gcs", "bucket": "lab"}, "gcsfs"),
        (
            {
                "type": "azure",
                "container": "lab",
                "account_url": "https://lab.blob.core.windows.net",
                "credential": "eA==",
            },
            "adlfs",
        ),
        (
            {
                "type": "azure",
                "container": "lab",
                "connection_string": "AccountName=lab;AccountKey=eA==;EndpointSuffix=core.windows.net",
            },
            "adlfs",
        ),
    ],
)
def test_the_libraries_take_the_arguments_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch, storage: dict[str, object], library: str
) -> None:
    pytest.importorskip(library)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")  # nobody is asked for a token
    found = address(**storage)
    assert hasattr(file_system(found), "put_file")


@pytest.mark.parametrize(
    "kind",
    [{"type": "gcs", "bucket": "lab"}, {"type": "azure", "container": "lab", "connection_string": "x"}],
)
def test_any_of_fsspecs_file_systems_will_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: dict[str, object]
) -> None:
    memory = MemoryFileSystem()
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(module, "file_system", lambda _: memory)
    told: list[float] = []
    bucket = CheckpointBucket(open_bucket(storage_of(**kind)), told.append)
    bucket.check_writable()
    assert bucket.sizes("one") == {}
    (tmp_path / "weights").write_bytes(b"123")
    bucket.put(tmp_path / "weights", "one", "deep/weights")
    bucket.write("one", "manifest.json", b"{}")
    bucket.write("other", "manifest.json", b"{}")
    assert bucket.sizes("one") == {"deep/weights": 3, "manifest.json": 2}
    bucket.get("one", "deep/weights", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"123"
    bucket.remove("one", "manifest.json")
    bucket.remove("one", "manifest.json")
    assert bucket.read("one", "manifest.json") is None
    assert all(seconds >= 120 for seconds in told)
