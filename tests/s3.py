"""A real S3 server on this host, moto's, that can be told to fail, to be slow, or to kill its caller."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

BUCKET = "lab"
_Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class S3Server:
    """What a test may ask of it and do to it."""

    server: BaseWSGIServer
    app: _Wsgi
    calls: list[str] = field(default_factory=list)  # "PUT /lab/..."
    failing: float = 0  # so many calls are answered with 500
    slow: float = 0.0  # seconds that every call takes
    kill_at: int = 0  # the process `victim()` is killed before or after the call of this number does its work
    kill_after: bool = False
    victim: Callable[[], int | None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def keys(self, prefix: str = "") -> dict[str, bytes]:
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {entry["Key"]: self.read(entry["Key"]) for entry in found}

    def read(self, key: str) -> bytes:
        return self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=body)

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="me",
            aws_secret_access_key="hidden-key",
            region_name="us-east-1",
        )

    def storage(self, **more: object) -> dict[str, object]:
        """`checkpoint_storage` of a config."""
        return {
            "type": "s3",
            "bucket": BUCKET,
            "prefix": "nets",
            "endpoint_url": self.url,
            "access_key": "me",
            "secret_key": "hidden-key",
            **more,
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "Boto3" in environ.get("HTTP_USER_AGENT", "") and "aiobotocore" not in environ["HTTP_USER_AGENT"]:
            return self.app(environ, start_response)  # the test itself
        self.calls.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        here = len(self.calls) == self.kill_at
        time.sleep(self.slow)
        if self.failing > 0:
            self.failing -= 1
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        if here and not self.kill_after:
            self.kill()
        answer = list(self.app(environ, start_response))
        if here and self.kill_after:
            self.kill()
        return answer

    def kill(self) -> None:
        pid = self.victim()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve an empty bucket."""
    server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True)
    made = S3Server(server, DomainDispatcherApplication(create_backend_app))
    server.app = made
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        made.client().create_bucket(Bucket=BUCKET)
        yield made
    finally:
        from moto.moto_api._internal import moto_api_backend

        moto_api_backend.reset()
        server.shutdown()
        server.server_close()
        thread.join()
