from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.run_info import CUT_MARK, ENTRY, RunInfo
from determined.exec._process import CappedFile, Mirror, worker_environment


def write(path: Path, pieces: list[bytes], *, limit: int) -> CappedFile:
    file = CappedFile(path, limit)
    for piece in pieces:
        file.write(piece)
    file.close()
    return file


def test_below_the_limit_every_byte_is_kept(tmp_path: Path) -> None:
    pieces = [b"\xff\xfe\x00", b"50%\r100%\r", b"x" * 40_000, b"no newline"]
    write(tmp_path / "log", pieces, limit=1 << 20)
    assert (tmp_path / "log").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("piece", [1, 700, 100_000])
def test_above_it_head_and_newest_tail_stay_and_the_mark_says_what_is_gone(
    tmp_path: Path, piece: int
) -> None:
    text = b"".join(b"%07d\n" % number for number in range(10_000))
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    write(tmp_path / "log", pieces, limit=8192)
    kept = (tmp_path / "log").read_bytes()
    assert len(kept) <= 8192
    head, gone, tail = CUT_MARK.split(kept)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) == 2048 <= len(tail)
    assert len(head) + int(gone) + len(tail) == len(text)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_full_disk_loses_output_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CappedFile(tmp_path / "log", 8192)
    file.write(b"before")
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", no_space)
        file.write(b"lost")
    file.write(b" after")
    file.close()
    mark = b"\n[detbuild: 4 bytes of output are lost: the disk was full]\n"
    assert ((tmp_path / "log").read_bytes(), file.disk_full) == (b"before after" + mark, True)


def no_space(fd: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_mirror_whose_reader_is_away_takes_everything_at_once() -> None:
    reader, writer = os.pipe()
    mirror = Mirror(writer)
    for _ in range(1000):
        mirror.write(b"x" * 65536)  # a pipe holds 64 KiB: this would wait forever
    mirror.close(0.05)
    os.close(reader)


def test_a_mirror_copies_in_order() -> None:
    reader, writer = os.pipe()
    mirror = Mirror(writer)
    for piece in (b"\xff\x00", b"\r", b"end"):
        mirror.write(piece)
    mirror.close(5)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"\xff\x00\rend"


BASE = {"HOME": "/tmp", "USER": "somebody", "PATH": "/bin"}


def test_determined_s_variables(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(run=2, slots=2, hparams={"lr": 0.1}, config={"name": "mnist"})
    found = worker_environment(info, {**BASE, "PYTHONHASHSEED": "7"})
    machine = found.pop("DET_CONTAINER_ID"), found.pop("DET_RESOURCES_ID")
    assert machine[0] == machine[1]
    assert found == {
        **BASE,
        "DET_AGENT_ID": "detbuild",
        "DET_ALLOCATION_ID": "3.7.2",
        "DET_CLUSTER_ID": "detbuild",
        "DET_EXPERIMENT_CONFIG": '{"name": "mnist"}',
        "DET_EXPERIMENT_ID": "3",
        "DET_HPARAMS": '{"lr": 0.1}',
        "DET_RESOURCES_TYPE": "docker-container",
        "DET_RUN_DIR": info.run_dir,
        "DET_SLOT_IDS": "[0, 1]",
        "DET_STEPS_COMPLETED": "0",
        "DET_TASK_ID": "3.7",
        "DET_TASK_TYPE": "TRIAL",
        "DET_TRIAL_ID": "7",
        "DET_TRIAL_RUN_ID": "2",
        "DET_TRIAL_SEED": "42",
        "DET_WORKDIR": info.context_dir,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "7",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }


@pytest.mark.parametrize(("warm_start", "steps"), [(False, "12"), (True, "0")])
def test_a_run_that_resumes_knows_from_where(
    make_run: Callable[..., RunInfo], warm_start: bool, steps: str
) -> None:
    with contract_checkpoints.store(Path(make_run().checkpoint_dir), {"steps_completed": 12}) as (_, uuid):
        pass
    found = worker_environment(make_run(checkpoints=(uuid, "older"), warm_start=warm_start), BASE)
    assert (found["DET_LATEST_CHECKPOINT"], found["DET_STEPS_COMPLETED"]) == (uuid, steps)


def test_a_value_that_linux_would_refuse_is_left_out(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(config={"data": "x" * 200_000}, hparams={"lr": 1})
    found = worker_environment(info, BASE)
    assert "DET_EXPERIMENT_CONFIG" not in found
    assert json.loads(found["DET_HPARAMS"]) == {"lr": 1}


@pytest.mark.parametrize("home", ["/", "", "/no/such/home"])
def test_a_user_without_a_home_gets_one(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = worker_environment(make_run(), {**BASE, "HOME": home})
    assert found["HOME"] == str(tmp_path / f"home-{os.getuid()}")
    assert Path(found["HOME"]).is_dir()


def test_a_user_unknown_to_the_image_gets_a_name(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    found = worker_environment(make_run(), {"HOME": "/tmp"})
    assert found["USER"] == found["LOGNAME"] == f"uid{os.getuid()}"


def test_a_python_path_of_the_user_s_keeps_the_harness(make_run: Callable[..., RunInfo]) -> None:
    found = worker_environment(make_run(), {**BASE, "PYTHONPATH": "/mine"})
    assert found["PYTHONPATH"] == f"/mine:{ENTRY.parent.parent}"
