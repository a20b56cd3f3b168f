from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.bucket import bucket_of
from detbuild.checkpoint.worker import Job, TransferResult, TransferWorker, run_transfer, transfer_worker
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.errors import EngineError
from determined._contract import checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.storage import StorageConfig
    from tests.s3 import S3Server

FILES = {"weights": b"123", "code/model_def.py": b"class Trial: ...", "empty": b""}


def bucket(s3: S3Server, **more: object) -> StorageConfig:
    config = config_from_mapping({"checkpoint_storage": s3.storage(**more)}, defaults=LOCAL_DEFAULTS)
    found = bucket_of(config.checkpoint_storage)
    assert found is not None
    return found


@pytest.fixture
def carrying(s3: S3Server) -> Iterator[TransferWorker]:
    with transfer_worker(bucket(s3)) as made:
        yield made


def checkpoint(root: Path) -> str:
    with checkpoints.store(root, {"steps_completed": 1}) as (directory, uuid):
        for path, body in FILES.items():
            (directory / path).parent.mkdir(exist_ok=True)
            (directory / path).write_bytes(body)
    return uuid


def ask(carrying: TransferWorker, job: Job) -> TransferResult:
    carrying.ask(job)
    answer = None
    while answer is None:
        answer = carrying.answer(wait=0.1)
    return answer


def names(s3: S3Server, uuid: str) -> list[str]:
    start = f"nets/{uuid}/"
    return sorted(key.removeprefix(start) for key in s3.keys(start))


def content(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


ALL = sorted([*FILES, "manifest.json", "metadata.json"])


def test_what_was_uploaded_comes_back_as_it_was(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path / "here")
    job = Job(do="upload", uuid=uuid, root=str(tmp_path / "here"))
    assert ask(carrying, job) == TransferResult(job=job)
    assert names(s3, uuid) == ALL
    fetched = ask(carrying, Job(do="fetch", uuid=uuid, root=str(tmp_path / "back" / uuid)))
    assert (fetched.error, fetched.damaged) == ("", "")
    assert content(tmp_path / "back" / uuid) == content(tmp_path / "here" / uuid)
    assert [path.name for path in (tmp_path / "back").iterdir()] == [uuid]


def test_the_manifest_is_written_last_and_removed_first(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path)
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path), owner="h/1"))
    assert [call for call in s3.calls if call.startswith("PUT")][-1].endswith("/manifest.json")
    ask(carrying, Job(do="remove", uuids=(uuid,), root=str(tmp_path), owner="h/1"))
    assert next(call for call in s3.calls if call.startswith("DELETE")).endswith("/manifest.json")
    assert (names(s3, uuid), list(tmp_path.iterdir())) == ([], [])


def test_a_damaged_checkpoint_is_not_sent(s3: S3Server, carrying: TransferWorker, tmp_path: Path) -> None:
    uuid = checkpoint(tmp_path)
    (tmp_path / uuid / "weights").write_bytes(b"124")
    answer = ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path)))
    assert answer.damaged == f"checkpoint {uuid} is damaged: weights differs from the stored content"
    assert names(s3, uuid) == []


def test_a_link_in_a_checkpoint_is_not_followed(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path / "here")
    (tmp_path / "outside").write_bytes(b"123")
    (tmp_path / "here" / uuid / "weights").unlink()
    (tmp_path / "here" / uuid / "weights").symlink_to(tmp_path / "outside")
    assert (
        "is not a regular file"
        in ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path / "here"))).damaged
    )
    assert "manifest.json" not in names(s3, uuid)


@pytest.mark.parametrize("harm", ["content", "missing", "manifest", "escape"])
def test_a_damaged_checkpoint_in_the_cloud_leaves_nothing_here(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path, harm: str
) -> None:
    uuid = checkpoint(tmp_path / "here")
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path / "here")))
    key = f"nets/{uuid}/weights"
    if harm == "content":
        s3.put(key, b"124")
    elif harm == "missing":
        s3.client().delete_object(Bucket="lab", Key=key)
    elif harm == "manifest":
        s3.put(f"nets/{uuid}/manifest.json", b"{")
    else:
        hostile = {"files": {"../../escape": {"size": 3, "sha256": "0"}}}
        s3.put(f"nets/{uuid}/manifest.json", json.dumps(hostile).encode())
    answer = ask(carrying, Job(do="fetch", uuid=uuid, root=str(tmp_path / "back" / uuid)))
    assert answer.damaged
    assert list((tmp_path / "back").iterdir()) == []


def test_only_what_is_missing_is_sent_again(s3: S3Server, carrying: TransferWorker, tmp_path: Path) -> None:
    uuid = checkpoint(tmp_path)
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path)))
    s3.client().delete_object(Bucket="lab", Key=f"nets/{uuid}/weights")
    s3.calls.clear()
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path)))
    sent = [call.rsplit("/", 1)[1] for call in s3.calls if call.startswith("PUT")]
    assert sent == ["weights", "manifest.json"]


def test_some_files_can_be_removed_and_the_rest_is_whole(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path / "here")
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path / "here"), owner="h/1"))
    job = Job(do="remove files", uuid=uuid, root=str(tmp_path / "here"), paths=("weights",), owner="h/1")
    for _ in range(2):  # a crash may have it done again
        assert ask(carrying, job) == TransferResult(job=job)
    assert checkpoints.verify(tmp_path / "here" / uuid) == []
    ask(carrying, Job(do="fetch", uuid=uuid, root=str(tmp_path / "back" / uuid)))
    assert sorted(content(tmp_path / "back" / uuid)) == sorted(set(ALL) - {"weights"})


def test_a_checkpoint_that_is_damaged_here_is_brought_back(carrying: TransferWorker, tmp_path: Path) -> None:
    uuid = checkpoint(tmp_path)
    ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path)))
    (tmp_path / uuid / "weights").write_bytes(b"")
    assert not ask(carrying, Job(do="restore", uuid=uuid, root=str(tmp_path))).damaged
    assert checkpoints.verify(tmp_path / uuid) == []
    assert [path.name for path in tmp_path.iterdir()] == [uuid]


def test_a_server_that_fails_now_and_then_does_not_matter(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path)
    s3.failing = 1
    assert ask(carrying, Job(do="upload", uuid=uuid, root=str(tmp_path))).error == ""
    assert names(s3, uuid) == ALL


def test_a_server_that_goes_on_failing_is_an_error_that_may_pass(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    uuid = checkpoint(tmp_path)
    s3.failing = float("inf")
    job = Job(do="upload", uuid=uuid, root=str(tmp_path))
    assert "Internal Server Error" in ask(carrying, job).error
    s3.failing = 0
    assert ask(carrying, job).error == ""


def test_a_server_that_is_not_there_is_an_error_that_names_it(s3: S3Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(EngineError, match=f"(?s)s3://lab/nets.*127.0.0.1:{port}"):
        run_transfer(bucket(s3, endpoint_url=f"http://127.0.0.1:{port}"), Job(do="check"))


def test_a_bucket_is_tried_out_and_left_as_it_was(s3: S3Server) -> None:
    run_transfer(bucket(s3), Job(do="check"))
    verbs = [call.split()[0] for call in s3.calls]
    assert (verbs[0], verbs[-2:]) == ("PUT", ["GET", "DELETE"])
    assert s3.keys() == {}


def test_a_bucket_that_is_not_there_is_refused(s3: S3Server) -> None:
    with pytest.raises(EngineError, match="bucket") as caught:
        run_transfer(bucket(s3, bucket="nowhere"), Job(do="check"))
    assert "hidden-key" not in str(caught.value) + caught.value.hint


def test_what_hangs_is_ended_and_begun_anew(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = checkpoint(tmp_path)
    job = Job(do="upload", uuid=uuid, root=str(tmp_path))
    s3.slow = 5.0
    carrying.ask(job)
    while not s3.calls:
        assert carrying.answer(wait=0.01) is None
    first = carrying.pid
    assert first is not None
    monkeypatch.setattr(carrying, "_deadline", time.monotonic())
    answer = carrying.answer()
    assert answer is not None
    assert answer.error == "s3://lab/nets did not answer in time"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    s3.slow = 0.0
    assert ask(carrying, job).error == ""


def test_it_ends_with_whoever_has_started_it(s3: S3Server, carrying: TransferWorker) -> None:
    ask(carrying, Job(do="check"))
    assert carrying._child is not None
    process = carrying._child.process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


def test_its_credentials_are_in_no_argument_and_no_environment(
    s3: S3Server, carrying: TransferWorker
) -> None:
    ask(carrying, Job(do="check"))
    for file in ("cmdline", "environ"):
        assert b"hidden-key" not in Path(f"/proc/{carrying.pid}/{file}").read_bytes()


def test_a_process_that_was_killed_is_an_error_that_may_pass(
    s3: S3Server, carrying: TransferWorker, tmp_path: Path
) -> None:
    ask(carrying, Job(do="check"))
    assert carrying.pid is not None
    os.kill(carrying.pid, signal.SIGKILL)
    assert "ended unexpectedly" in ask(carrying, Job(do="check")).error
    assert ask(carrying, Job(do="check")).error == ""
