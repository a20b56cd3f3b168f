"""Servers on this host that speak like Google Cloud Storage and Azure; what needs one is skipped without."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import requests

BUCKET = "lab"
ACCOUNT = "devstoreaccount1"  # Azurite's, known to all
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Cloud:
    url: str
    storage: dict[str, object]  # `checkpoint_storage` of a config, for a bucket that is there
    missing: dict[str, object]  # for one that is not
    no_bucket: str  # what is said then
    names: Callable[[], set[str]]


@contextmanager
def gcs_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server").create_server(
        "127.0.0.1", 0, in_memory=True, default_bucket=BUCKET
    )
    server.start()
    url = f"http://127.0.0.1:{server._api._httpd.server_port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    storage: dict[str, object] = {"type": "gcs", "bucket": BUCKET, "prefix": "my nets"}

    def names() -> set[str]:
        found = requests.get(f"{url}/storage/v1/b/{BUCKET}/o", timeout=10).json()
        return {entry["name"] for entry in found.get("items", [])}

    try:
        yield Cloud(url, storage, {**storage, "bucket": "nolab"}, "there is no bucket nolab", names)
    finally:
        server.stop()


@contextmanager
def azure_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    pytest.importorskip("adlfs")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs Azurite: npm install -g azurite")
    port = _free_port()
    options = ("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence")
    process = subprocess.Popen(
        [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options], stdout=subprocess.DEVNULL
    )
    try:
        _await(port)
        url = f"http://127.0.0.1:{port}/{ACCOUNT}"
        # Of another account: the config comes first.
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", f"AccountName=x;AccountKey=eA==;BlobEndpoint={url}x"
        )
        storage: dict[str, object] = {
            "type": "azure",
            "container": BUCKET,
            "account_url": url,
            "credential": KEY,
        }
        yield Cloud(
            url,
            storage,
            {**storage, "container": "nolab"},
            "The specified container does not exist",
            _container(url),
        )
    finally:
        process.terminate()
        process.wait()


def _container(url: str) -> Callable[[], set[str]]:
    from azure.storage.blob import BlobServiceClient

    def names() -> set[str]:
        with BlobServiceClient(url, credential=KEY) as client:
            return set(client.get_container_client(BUCKET).list_blob_names())

    with BlobServiceClient(url, credential=KEY) as client:
        client.create_container(BUCKET)
    return names


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("Azurite did not start")
