"""Our own buckets keep the contract, and one that breaks it is found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from detbuild.testing.storage import BucketContract
from tests.clouds import azure_server, gcs_server
from tests.s3 import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class TestS3(BucketContract):
    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_server() as server:
            self.storage = server.storage()
            yield


class TestGcs(BucketContract):
    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with gcs_server(monkeypatch) as server:
            self.storage = server.storage
            yield


class TestAzure(BucketContract):
    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with azure_server(monkeypatch) as server:
            self.storage = server.storage
            yield


class Memory:
    """A bucket of a package."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def sizes(self, uuid: str) -> Mapping[str, int]:
        return {key: len(body) for key, body in self.files.items() if key.startswith(f"{uuid}/")}

    def put(self, file: Path, key: str, progress: Callable[[], None]) -> None:
        self.files[key] = file.read_bytes()

    def get(self, key: str, file: Path, progress: Callable[[], None]) -> None:
        file.write_bytes(self.files[key])

    def write(self, key: str, body: bytes) -> None:
        self.files[key] = body

    def read(self, key: str) -> bytes:
        if key not in self.files:
            raise FileNotFoundError(key)
        return self.files[key]

    def remove(self, key: str) -> None:
        self.files.pop(key, None)


class Loose(Memory):
    """It takes `one-more` for a file of `one`."""

    def sizes(self, uuid: str) -> Mapping[str, int]:
        return {key: len(body) for key, body in self.files.items() if key.startswith(uuid)}


class Contract(BucketContract):
    def __init__(self, kind: type[Memory]) -> None:
        self.made = kind({})

    def bucket(self) -> Memory:
        return self.made


@pytest.mark.parametrize("kind", [Memory, Loose])
def test_a_bucket_that_mixes_checkpoints_is_found(kind: type[Memory], tmp_path: Path) -> None:
    contract = Contract(kind)
    contract.test_what_is_written_is_read_until_it_is_removed()
    contract.test_a_file_may_be_removed_twice()
    contract.test_files_go_there_and_come_back(tmp_path)
    if kind is Memory:
        contract.test_sizes_are_those_of_one_checkpoint()
        assert contract.made.files == {}
        return
    with pytest.raises(AssertionError):
        contract.test_sizes_are_those_of_one_checkpoint()
