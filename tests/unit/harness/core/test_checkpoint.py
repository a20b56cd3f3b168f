from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from determined import core
from determined._contract import checkpoints
from determined._contract.errors import CheckpointError
from determined._contract.records import (
    Checkpoint,
    Record,
    Restored,
    Training,
    decode,
)
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo
from determined._run.processes import GroupError
from determined._version import __version__

Body = Callable[[core.Context], Any]
SIZE = 2


@pytest.fixture
def on_all(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[Any]]:
    info = make_run(entrypoint="python3 train.py", slots=SIZE)
    monkeypatch.setenv(RUN_DIR_VARIABLE, info.run_dir)

    def run(body: Body, **options: Any) -> list[Any]:
        def rank(number: int) -> Any:
            distributed = core.DistributedContext(
                rank=number,
                size=SIZE,
                local_rank=number,
                local_size=SIZE,
                cross_rank=0,
                cross_size=1,
                chief_ip=str(tmp_path),
            )
            with distributed, core.init(distributed=distributed, **options) as context:
                return body(context)

        with ThreadPoolExecutor(SIZE) as threads:
            return list(threads.map(rank, range(SIZE)))

    return run


def records(tmp_path: Path) -> list[Any]:
    return [decode(line).record for line in (tmp_path / "run" / "events.jsonl").read_bytes().splitlines()]


def test_the_files_of_all_ranks_become_one_checkpoint(
    on_all: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def body(context: core.Context) -> str:
        rank = context.distributed.rank
        metadata = {"steps_completed": 3} if rank == 0 else {"more": 1}
        with context.checkpoint.store_path(metadata, shard=True) as (path, uuid):
            (path / "both").mkdir()
            (path / "both" / f"part-{rank}").write_text(str(rank))
            (path / "same").write_text("same")
        return uuid

    one, other = on_all(body)
    checkpoint = tmp_path / "checkpoints" / one
    assert one == other
    assert checkpoints.verify(checkpoint) == []
    (record,) = (each for each in records(tmp_path) if isinstance(each, Checkpoint))
    assert set(record.resources) == {"both/part-0", "both/part-1", "metadata.json", "same"}
    assert (record.steps_completed, record.metadata["more"]) == (3, 1)


def test_different_files_of_one_name_are_a_conflict_and_nothing_is_stored(
    on_all: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def body(context: core.Context) -> None:
        with (
            pytest.raises(RuntimeError, match=r"different files of the same name: state \(ranks 0 and 1\)"),
            context.checkpoint.store_path({"steps_completed": 3}, shard=True) as (path, _),
        ):
            (path / "state").write_text(str(context.distributed.rank))

    on_all(body)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_different_metadata_are_a_conflict(on_all: Callable[..., list[Any]]) -> None:
    def body(context: core.Context) -> None:
        metadata = {"steps_completed": context.distributed.rank}
        with (
            pytest.raises(RuntimeError, match="steps_completed is 0 on rank 0, but 1 on rank 1"),
            context.checkpoint.store_path(metadata, shard=True),
        ):
            pass

    on_all(body)


def test_a_rank_without_files_takes_part(on_all: Callable[..., list[Any]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "state").touch()

    def body(context: core.Context) -> str:
        mine = tmp_path / "mine" if context.distributed.rank else None
        return context.checkpoint.upload(mine, {"steps_completed": 1}, shard=True)

    uuid, _ = on_all(body)
    assert (tmp_path / "checkpoints" / uuid / "state").is_file()


def test_rank_0_reports_and_stores_alone_where_files_are_not_shards(
    on_all: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def body(context: core.Context) -> None:
        context.train.report_training_metrics(1, {"rank": context.distributed.rank})
        if context.distributed.rank:
            with (
                pytest.raises(RuntimeError, match="rank 1 stored a checkpoint without shard=True"),
                context.checkpoint.store_path({"steps_completed": 1}),
            ):
                pass

    on_all(body)
    assert records(tmp_path) == [Training(1, {"rank": 0})]


def test_all_ranks_get_the_answer_of_rank_0_or_only_it_may_ask(on_all: Callable[..., list[Any]]) -> None:
    assert on_all(lambda context: context.preempt.should_preempt()) == [False, False]

    def body(context: core.Context) -> None:
        if context.distributed.rank:
            with pytest.raises(RuntimeError, match="preempt_mode is ChiefOnly"):
                context.preempt.should_preempt()

    on_all(body, preempt_mode=core.PreemptMode.ChiefOnly)


def test_all_ranks_read_a_checkpoint_together(on_all: Callable[..., list[Any]], tmp_path: Path) -> None:
    def body(context: core.Context) -> str:
        with context.checkpoint.store_path({"steps_completed": 1}, shard=True) as (path, uuid):
            (path / f"{context.distributed.rank}").write_text("x")
        context.checkpoint.download(uuid, tmp_path / "copy")
        with context.checkpoint.restore_path(uuid) as restored:
            return "".join(sorted(each.name for each in restored.iterdir()))

    assert on_all(body) == ["01manifest.jsonmetadata.json"] * SIZE
    assert (tmp_path / "copy" / "1").is_file()


def test_a_rank_that_fails_in_a_shard_lets_nobody_wait(
    on_all: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def body(context: core.Context) -> None:
        with context.checkpoint.store_path({"steps_completed": 1}, shard=True):
            if context.distributed.rank:
                raise KeyError("odd")

    with pytest.raises((KeyError, GroupError)):
        on_all(body)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def recorded(info: RunInfo) -> list[Record]:
    return [decode(line).record for line in (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()]


def test_a_checkpoint_is_stored_restored_downloaded_and_deleted(
    in_run: Callable[..., RunInfo], tmp_path: Path
) -> None:
    info = in_run()
    with core.init() as context:
        with context.checkpoint.store_path({"steps_completed": 4, "note": "x"}) as (path, uuid):
            (path / "sub").mkdir()
            (path / "sub" / "state").write_text("4")
        with context.checkpoint.restore_path(uuid) as restored:
            assert (restored / "sub" / "state").read_text() == "4"
        with context.checkpoint.restore_path(uuid, selector=lambda name: name == "metadata.json") as restored:
            assert [each.name for each in restored.iterdir()] == ["metadata.json"]
        context.checkpoint.download(uuid, tmp_path / "copy")
        metadata = context.checkpoint.get_metadata(uuid)
        again = context.checkpoint.upload(
            tmp_path / "copy", {"steps_completed": 5}, selector=lambda name: name.startswith("sub")
        )
        context.checkpoint.delete(uuid)
    found = sorted(each.relative_to(tmp_path / "copy").as_posix() for each in (tmp_path / "copy").rglob("*"))
    assert found == ["metadata.json", "sub", "sub/state"]
    assert metadata == {"determined_version": __version__, "steps_completed": 4, "note": "x"}
    assert [each.name for each in Path(info.checkpoint_dir).iterdir()] == [again]
    assert checkpoints.verify(Path(info.checkpoint_dir) / again) == []
    stored, first, _, second = recorded(info)
    assert isinstance(stored, Checkpoint)
    assert (stored.uuid, stored.steps_completed) == (uuid, 4)
    assert first == Restored(uuid, 4)
    assert isinstance(second, Checkpoint)
    assert set(second.resources) == {"metadata.json", "sub/state"}


@pytest.mark.parametrize("metadata", [None, {}, {"steps_completed": "4"}, {"steps_completed": True}])
def test_a_checkpoint_needs_its_number_of_batches(in_run: Callable[..., RunInfo], metadata: Any) -> None:
    info = in_run()
    with (
        pytest.raises(ValueError, match="require steps_completed"),
        core.init() as context,
        context.checkpoint.store_path(metadata),
    ):
        pass
    assert list(Path(info.checkpoint_dir).iterdir()) == []


def test_a_checkpoint_that_is_missing_or_damaged_is_not_restored(in_run: Callable[..., RunInfo]) -> None:
    info = in_run()
    with core.init() as context:
        with context.checkpoint.store_path({"steps_completed": 1}) as (path, uuid):
            (path / "state").write_text("1234")
        (Path(info.checkpoint_dir) / uuid / "state").write_text("1239")
        with pytest.raises(CheckpointError, match="is damaged: state differs from"):
            context.checkpoint.download(uuid, "copy")
        with pytest.raises(CheckpointError, match="no checkpoint nowhere"):
            context.checkpoint.get_metadata("nowhere")
        with pytest.raises(ValueError, match="is not a valid checkpoint ID"):
            context.checkpoint.delete("../checkpoints")
