from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from determined._contract import checkpoints
from determined._contract.errors import CheckpointError, StorageError

WEIGHTS = b"\x00weights" * 1000


def stored(root: Path, *, steps: int = 1) -> str:
    with checkpoints.store(root, {"steps_completed": steps}) as (path, uuid):
        (path / "state_dict.pth").write_bytes(WEIGHTS)
        (path / "code" / "empty").mkdir(parents=True)
        (path / "code" / "model_def.py").write_bytes(b"")
    return uuid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_whole_and_says_what_is_in_it(tmp_path: Path) -> None:
    uuid = stored(tmp_path, steps=12)
    assert names(tmp_path) == [uuid]
    assert checkpoints.verify(tmp_path / uuid) == []
    assert checkpoints.resources(tmp_path / uuid) == {
        "code/model_def.py": 0,
        "metadata.json": 27,
        "state_dict.pth": len(WEIGHTS),
    }
    assert checkpoints.steps_completed(tmp_path / uuid) == 12


def test_nothing_is_visible_while_it_is_filled(tmp_path: Path) -> None:
    with checkpoints.store(tmp_path, {}) as (path, uuid):
        (path / "half").write_bytes(b"half")
        assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    assert (tmp_path / uuid / "half").read_bytes() == b"half"


def test_a_link_is_stored_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("weights")
    root = tmp_path / "checkpoints"
    with checkpoints.store(root, {}) as (path, uuid):
        (path / "latest").symlink_to(tmp_path / "outside")
    assert not (root / uuid / "latest").is_symlink()
    assert (root / uuid / "latest").read_text() == "weights"
    assert checkpoints.verify(root / uuid) == []


def test_a_link_to_no_file_is_refused_by_name(tmp_path: Path) -> None:
    def link(path: Path) -> None:
        (path / "loop").symlink_to(path)

    with (
        pytest.raises(CheckpointError, match="loop in the checkpoint"),
        checkpoints.store(tmp_path, {}) as (p, _),
    ):
        link(p)


def test_a_pipe_is_refused_by_name(tmp_path: Path) -> None:
    def save(path: Path) -> None:
        (path / "sub").mkdir()
        os.mkfifo(path / "sub" / "pipe")

    wanted = "sub/pipe in the checkpoint is not a regular file: a named pipe"
    with pytest.raises(CheckpointError, match=wanted), checkpoints.store(tmp_path, {}) as (path, _):
        save(path)
    assert names(tmp_path) == []


def test_a_manifest_is_refused_for_whatever_it_should_not_hold(tmp_path: Path) -> None:
    checkpoint = tmp_path / stored(tmp_path)
    body = (checkpoint / "manifest.json").read_bytes()
    whole = json.loads(body)
    entry = whole["files"]["state_dict.pth"]
    for files in (
        {**whole["files"], "../outside": entry},
        {**whole["files"], "/etc/hostname": entry},
        {**whole["files"], "a//b": entry},
        {**whole["files"], "a/./b": entry},
        {**whole["files"], "": entry},
        {**whole["files"], "a\0b": entry},
        {**whole["files"], "\ud800": entry},
        {**whole["files"], "n" * 5000: entry},
        {**whole["files"], "b": {**entry, "size": -1}},
        {**whole["files"], "b": {**entry, "size": True}},
        {**whole["files"], "b": {**entry, "size": 1 << 80}},
        {**whole["files"], "b": {**entry, "size": 1.5}},
        {**whole["files"], "b": {**entry, "sha256": "zz"}},
        {**whole["files"], "b": []},
        [],
        None,
    ):
        (checkpoint / "manifest.json").write_text(json.dumps({"files": files}))
        (problem,) = checkpoints.verify(checkpoint)
        assert problem.startswith("manifest.json cannot be read: ")
    for text in (b"", b"[]", b"null", b"[" * 100_000, b"[" * 1_000_000, b"9" * 10_000, b"\xff"):
        (checkpoint / "manifest.json").write_bytes(text)
        (problem,) = checkpoints.verify(checkpoint)
        assert problem.startswith("manifest.json cannot be read: ")
    (checkpoint / "manifest.json").write_bytes(body)
    assert checkpoints.verify(checkpoint) == []


def test_files_that_claim_to_be_huge_are_not_read(tmp_path: Path) -> None:
    checkpoint = tmp_path / stored(tmp_path)
    os.truncate(checkpoint / "state_dict.pth", 1 << 42)
    assert checkpoints.verify(checkpoint) == [f"state_dict.pth has {1 << 42} bytes instead of {len(WEIGHTS)}"]
    os.truncate(checkpoint / "metadata.json", 1 << 42)
    assert checkpoints.read_metadata(checkpoint) == {}
    os.truncate(checkpoint / "manifest.json", 1 << 42)
    assert checkpoints.verify(checkpoint) == ["manifest.json is larger than 32 MiB"]


def test_nothing_is_left_when_filling_it_raises(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        (path / "half").write_bytes(b"half")
        raise KeyError

    with pytest.raises(KeyError), checkpoints.store(tmp_path, {}) as (path, _):
        fail(path)
    assert names(tmp_path) == []


KILLED_WHILE_FILLING = """
import os, signal, sys
from pathlib import Path
from determined._contract import checkpoints
with checkpoints.store(Path(sys.argv[1]), {}) as (path, uuid):
    (path / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_killed_while_it_writes_leaves_a_draft_that_the_next_one_sweeps(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_FILLING, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (draft,) = names(tmp_path)
    assert draft.startswith(".")
    (tmp_path / ".of-another.tmp").mkdir()
    checkpoints.prepare(tmp_path)
    assert names(tmp_path) == [".of-another.tmp"]


def test_the_draft_of_a_living_run_is_not_swept(tmp_path: Path) -> None:
    with checkpoints.store(tmp_path, {}) as (path, uuid):
        (path / "half").write_bytes(b"half")
        checkpoints.prepare(tmp_path)
    assert checkpoints.verify(tmp_path / uuid) == []


def damage(checkpoint: Path, what: str) -> None:
    file = checkpoint / "state_dict.pth"
    match what:
        case "truncated":
            file.write_bytes(WEIGHTS[:3])
        case "flipped":
            file.write_bytes(b"\x01" + WEIGHTS[1:])
        case "missing":
            file.unlink()
        case "extra":
            (checkpoint / "code" / "more.py").write_text("")
        case "no manifest":
            (checkpoint / "manifest.json").unlink()
        case "strange manifest":
            (checkpoint / "manifest.json").write_text(json.dumps({"files": [1, 2]}))


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("truncated", f"state_dict.pth has 3 bytes instead of {len(WEIGHTS)}"),
        ("flipped", "state_dict.pth differs from the stored content"),
        ("missing", "state_dict.pth is missing"),
        ("extra", "code/more.py is not in manifest.json"),
    ],
)
def test_every_kind_of_damage_is_found(tmp_path: Path, what: str, problem: str) -> None:
    checkpoint = tmp_path / stored(tmp_path)
    damage(checkpoint, what)
    assert checkpoints.verify(checkpoint) == [problem]


@pytest.mark.parametrize("what", ["no manifest", "strange manifest"])
def test_without_its_manifest_a_checkpoint_is_damaged(tmp_path: Path, what: str) -> None:
    checkpoint = tmp_path / stored(tmp_path)
    damage(checkpoint, what)
    (problem,) = checkpoints.verify(checkpoint)
    assert problem.startswith("manifest.json cannot be read")


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_ones_are_named(tmp_path: Path) -> None:
    newest, older = stored(tmp_path), stored(tmp_path)
    damage(tmp_path / newest, "truncated")
    uuid, rejected = checkpoints.first_whole(tmp_path, ["gone", newest, older])
    assert uuid == older
    assert rejected == {
        "gone": "it is missing",
        newest: f"state_dict.pth has 3 bytes instead of {len(WEIGHTS)}",
    }


def test_when_all_are_damaged_none_is_taken(tmp_path: Path) -> None:
    newest = stored(tmp_path)
    damage(tmp_path / newest, "missing")
    with pytest.raises(
        CheckpointError,
        match=f"all checkpoints to resume from are damaged:\n  {newest}: state_dict.pth is missing",
    ):
        checkpoints.first_whole(tmp_path, [newest])


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_else(tiny_disk: Path) -> None:
    older = stored(tiny_disk)
    with (
        pytest.raises(StorageError, match=r"cannot write a checkpoint under .*: No space left on") as failed,
        checkpoints.store(tiny_disk, {}) as (path, _),
    ):
        (path / "big").write_bytes(bytes(2 << 20))
    assert "free space" in failed.value.hint
    assert names(tiny_disk) == [older]
    assert checkpoints.verify(tiny_disk / older) == []


def test_a_writer_that_hides_the_full_disk_is_seen_through(tiny_disk: Path) -> None:
    def write(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)) == 1 << 16:
                pass
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    with pytest.raises(StorageError), checkpoints.store(tiny_disk, {}) as (path, _):
        write(path / "big")


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write checkpoints under"):
        checkpoints.prepare(tmp_path / "file" / "checkpoints")
