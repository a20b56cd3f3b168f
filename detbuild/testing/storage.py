"""What every bucket must do, as tests for pytest; our own and those of packages run the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.bucket import Bucket, CheckpointBucket, open_bucket
from detbuild.checkpoint.worker import Job, TransferResult, TransferWorker, transfer_worker
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.config.secrets import marks
from determined._contract import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig

HARD_NAME: Final = "deep er/ü/näme +%20#[a]&.txt"
_FILES: Final[Mapping[str, bytes]] = {
    "weights": bytes(range(256)) * 2048,
    "code/model_def.py": b"class Trial: ...",
    "empty": b"",
    HARD_NAME: b"hard",
}
_OWNER: Final = "0123abcd/1"
_SECRET: Final = 8  # characters; a shorter value may be in other text by chance


class BucketContract:
    """Derive `Test...` from it, and set `storage` to a section `checkpoint_storage` of an empty bucket.

    Set it in a fixture if it differs from test to test. The tests leave the bucket empty.
    """

    storage: Mapping[str, object]

    def config(self) -> ExperimentConfig:
        return config_from_mapping({"checkpoint_storage": dict(self.storage)}, defaults=LOCAL_DEFAULTS)

    def bucket(self) -> Bucket:
        return open_bucket(self.config().checkpoint_storage)

    def test_the_config_is_complete_and_hides_its_secrets(self) -> None:
        config = self.config()
        assert config_from_mapping(config.resolved(), defaults=LOCAL_DEFAULTS) == config
        shown = json.dumps(config.masked()) + str(config.checkpoint_storage.bucket_url)
        for path in marks(type(config)):
            value: object = config.resolved()
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if path[0] == "checkpoint_storage" and len(str(value)) >= _SECRET:
                assert str(value) not in shown + repr(config.checkpoint_storage)

    def test_what_is_written_is_read_until_it_is_removed(self) -> None:
        bucket = self.bucket()
        assert _missing(bucket, "one/a")
        for body in (b"first", b"", b"second"):
            bucket.write("one/a", body)
            assert bucket.read("one/a") == body
        bucket.remove("one/a")
        assert _missing(bucket, "one/a")

    def test_a_file_may_be_removed_twice(self) -> None:
        bucket = CheckpointBucket(self.bucket(), _ignore)
        bucket.write("one", "a", b"1")
        bucket.remove("one", "a")
        bucket.remove("one", "a")
        assert bucket.read("one", "a") is None

    def test_files_go_there_and_come_back(self, tmp_path: Path) -> None:
        bucket = self.bucket()
        for number, (path, body) in enumerate(_FILES.items()):
            (tmp_path / f"{number}").write_bytes(body)
            bucket.put(tmp_path / f"{number}", f"one/{path}", _nothing)
            bucket.get(f"one/{path}", tmp_path / "back", _nothing)
            assert (tmp_path / "back").read_bytes() == body
        (tmp_path / "new").write_bytes(b"replaced")
        bucket.put(tmp_path / "new", "one/weights", _nothing)
        assert bucket.read("one/weights") == b"replaced"
        _clear(bucket, "one")

    def test_sizes_are_those_of_one_checkpoint(self) -> None:
        bucket = self.bucket()
        for key in ("one/a", "one/deep/er/b", "one/empty", "one-more/a", "other/a"):
            bucket.write(key, b"" if key.endswith("empty") else b"123")
        assert dict(bucket.sizes("one")) == {"one/a": 3, "one/deep/er/b": 3, "one/empty": 0}
        assert dict(bucket.sizes("none")) == {}
        for uuid in ("one", "one-more", "other"):
            _clear(bucket, uuid)

    def test_a_checkpoint_goes_there_and_comes_back_in_the_worker(self, tmp_path: Path) -> None:
        root, gone = tmp_path / "here", ("weights", HARD_NAME)
        uuid = _checkpoint(root)
        own = Job(do="check", uuid=uuid, uuids=(uuid, "none"), root=str(root), paths=gone, owner=_OWNER)
        with transfer_worker(self.config().checkpoint_storage) as worker:
            _done(worker, own)
            for _ in range(2):  # the second finds everything there
                _done(worker, replace(own, do="upload"))
            assert set(self.bucket().sizes(uuid)) == {f"{uuid}/{name}" for name in _names(root / uuid)}
            _done(worker, Job(do="fetch", uuid=uuid, root=str(tmp_path / "back")))
            assert checkpoints.verify(tmp_path / "back") == []
            assert _names(tmp_path / "back") == _names(root / uuid)
            _done(worker, replace(own, do="remove files"))
            _done(worker, Job(do="fetch", uuid=uuid, root=str(tmp_path / "part")))
            assert _names(tmp_path / "part") == _names(tmp_path / "back") - set(gone)
            _done(worker, replace(own, do="remove"))
        assert dict(self.bucket().sizes(uuid)) == {}


def _done(worker: TransferWorker, job: Job) -> None:
    worker.ask(job)
    result = None
    while result is None:
        result = worker.answer(wait=1.0)
    assert result == TransferResult(job=job), result


def _checkpoint(root: Path) -> str:
    with checkpoints.store(root, {"steps_completed": 1}) as (directory, uuid):
        for path, body in _FILES.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(body)
    return uuid


def _names(directory: Path) -> set[str]:
    """Return the files of a checkpoint with its manifest."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def _missing(bucket: Bucket, key: str) -> bool:
    try:
        bucket.read(key)
    except FileNotFoundError:
        return True
    return False


def _clear(bucket: Bucket, uuid: str) -> None:
    for key in bucket.sizes(uuid):
        bucket.remove(key)


def _nothing() -> None: ...


def _ignore(_seconds: float) -> None: ...
