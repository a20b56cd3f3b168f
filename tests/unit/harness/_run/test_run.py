"""A run as its trial sees it: of one process, and of several that share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.errors import CheckpointError, InvalidHP
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    ExitReason,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Training,
    Validation,
    decode,
)
from determined._run.run import ChiefRun, SharedRun
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined._contract.records import Record
    from determined._contract.run_info import RunInfo
    from determined._run.processes import SocketGroup

    MakeRun = Callable[..., RunInfo]
    Together = Callable[..., list[Any]]


def records(run: ChiefRun) -> list[Record]:
    """End the run; what it had recorded before."""
    run.end(Ended(ExitReason.COMPLETED))
    lines = (Path(run.info.run_dir) / "events.jsonl").read_bytes().splitlines()
    *found, last = (decode(line).record for line in lines)
    assert last == Ended(ExitReason.COMPLETED)
    return found


def stored(info: RunInfo, steps: int) -> str:
    with contract_checkpoints.store(Path(info.checkpoint_dir), {"steps_completed": steps}) as (path, uuid):
        (path / "state").write_text("state")
    return uuid


def kept(info: RunInfo) -> list[str]:
    return sorted(path.name for path in Path(info.checkpoint_dir).iterdir())


def fill(path: Path) -> None:
    (path / "state").write_text("1234")


def fill_and_fail(path: Path) -> None:
    fill(path)
    raise ZeroDivisionError


def metadata(steps: int, **more: object) -> dict[str, object]:
    return {"determined_version": __version__, "steps_completed": steps, **more}


def test_reports_are_recorded_in_order_each_as_its_kind(make_run: MakeRun) -> None:
    run = ChiefRun(make_run())
    run.enter(Stage.TRAIN)
    run.report_windows([(1, {"loss": 2.0}), (2, {"loss": 1.0})])
    run.report_training(3, {"loss": 0.5})
    run.report_metrics("throughput", 3, {"batches": 9})
    run.report_validation(3, {"accuracy": 0.5})
    run.report_progress(0.25)
    assert run.stage is Stage.TRAIN
    assert records(run) == [
        StageEntered(Stage.TRAIN),
        Training(1, {"loss": 2.0}),
        Training(2, {"loss": 1.0}),
        Training(3, {"loss": 0.5}),
        Measured("throughput", 3, {"batches": 9}),
        Validation(3, {"accuracy": 0.5}),
        Progress(0.25),
    ]


@pytest.mark.parametrize(
    ("metrics", "written"),
    [
        ({"loss": 0.5, "n": 3, "ok": True, "none": None}, {"loss": 0.5, "n": 3, "ok": True, "none": None}),
        ({"n": (1 << 63) - 1}, {"n": (1 << 63) - 1}),
        ({"n": 1 << 63}, {"n": float(1 << 63)}),
        ({0: 1.0, "by_class": [1, (2, 3)]}, {"0": 1.0, "by_class": [1, [2, 3]]}),
        ({"model": object(), "by_class": {"cat": object()}, "loss": 1.0}, {"loss": 1.0}),
    ],
    ids=["plain", "largest integer", "larger", "other types", "no number"],
)
def test_metrics_are_written_as_json_types_or_left_out(
    make_run: MakeRun, metrics: dict[Any, object], written: dict[str, object]
) -> None:
    run = ChiefRun(make_run())
    run.report_training(1, metrics)
    assert records(run) == [Training(1, written)]


def test_a_metric_that_is_left_out_is_named_once_for_each_group(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = ChiefRun(make_run())
    for _ in range(2):
        run.report_training(1, {"model": object()})
        run.report_validation(1, {"model": object()})
    run.close()
    named = [message[:49].rpartition(" is")[0] for message in caplog.messages]
    assert named == ["the metric model of training", "the metric model of validation"]


def test_a_checkpoint_is_recorded_with_its_files_once_it_is_visible(make_run: MakeRun) -> None:
    info = make_run()
    run = ChiefRun(info)
    with run.store_checkpoint(5, {"framework": "toy", "steps_completed": 99}) as (path, uuid):
        fill(path)
        assert uuid not in kept(info)
    assert kept(info) == [uuid]
    size = (Path(info.checkpoint_dir) / uuid / "metadata.json").stat().st_size
    assert records(run) == [
        Checkpoint(uuid, 5, {"metadata.json": size, "state": 4}, metadata(5, framework="toy"))
    ]


def test_of_a_checkpoint_that_fails_nothing_remains(make_run: MakeRun) -> None:
    info = make_run()
    run = ChiefRun(info)
    with pytest.raises(ZeroDivisionError), run.store_checkpoint(5, {}) as (path, _):
        fill_and_fail(path)
    assert (kept(info), records(run), run.open_checkpoint()) == ([], [], None)


def test_a_spare_checkpoint_that_is_not_needed_is_removed(make_run: MakeRun) -> None:
    info = make_run()
    run = ChiefRun(info)
    note = Path(info.run_dir) / "spare_checkpoint.json"
    with run.spare_checkpoint(5, {}, fill):
        (draft,) = kept(info)
        found = json.loads(note.read_bytes())
        assert (found["draft"], found["checkpoint"]["steps_completed"]) == (draft, 5)
    assert (kept(info), note.exists(), records(run)) == ([], False, [])


def test_a_spare_checkpoint_is_recorded_when_its_block_fails(make_run: MakeRun) -> None:
    info = make_run()
    run = ChiefRun(info)
    with pytest.raises(ZeroDivisionError), run.spare_checkpoint(5, {"framework": "toy"}, fill):
        raise ZeroDivisionError
    (uuid,) = kept(info)
    path = Path(info.checkpoint_dir) / uuid
    assert (contract_checkpoints.verify(path), run.open_checkpoint()) == ([], (path, uuid))
    assert not (Path(info.run_dir) / "spare_checkpoint.json").exists()
    recorded = Checkpoint(uuid, 5, contract_checkpoints.resources(path), metadata(5, framework="toy"))
    assert records(run) == [recorded, Restored(uuid, 5)]


def test_hyperparameters_that_cannot_work_need_no_spare_checkpoint(make_run: MakeRun) -> None:
    info = make_run()
    run = ChiefRun(info)
    with pytest.raises(InvalidHP), run.spare_checkpoint(5, {}, fill):
        raise InvalidHP
    assert (kept(info), records(run)) == ([], [])


def test_without_a_checkpoint_there_is_nothing_to_open(make_run: MakeRun) -> None:
    run = ChiefRun(make_run())
    assert run.open_checkpoint() is None
    assert records(run) == []


@pytest.mark.parametrize("warm_start", [False, True])
def test_the_newest_checkpoint_of_this_run_precedes_those_it_began_with(
    make_run: MakeRun, warm_start: bool
) -> None:
    older = stored(make_run(), 3)
    info = make_run(checkpoints=(older,), warm_start=warm_start)
    run = ChiefRun(info)
    for steps in (6, 9):
        with run.store_checkpoint(steps, {}) as (path, uuid):
            fill(path)
    assert run.open_checkpoint() == (Path(info.checkpoint_dir) / uuid, uuid)
    assert records(run)[-1] == Restored(uuid, 9)


@pytest.mark.parametrize(("warm_start", "steps"), [(False, 3), (True, 0)])
def test_a_damaged_checkpoint_is_recorded_and_the_older_one_opened(
    make_run: MakeRun, warm_start: bool, steps: int
) -> None:
    root = Path(make_run().checkpoint_dir)
    newest, older = stored(make_run(), 6), stored(make_run(), 3)
    (root / newest / "state").write_text("sta")
    run = ChiefRun(make_run(checkpoints=(newest, older), warm_start=warm_start))
    assert run.open_checkpoint() == (root / older, older)
    assert records(run) == [
        CheckpointRejected(newest, "state has 3 bytes instead of 5"),
        Restored(older, steps),
    ]


def test_checkpoints_that_are_all_damaged_are_named_with_a_hint(make_run: MakeRun) -> None:
    root = make_run().checkpoint_dir
    lost = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    run = ChiefRun(make_run(checkpoints=(lost,)))
    with pytest.raises(CheckpointError) as refused:
        run.open_checkpoint()
    assert str(refused.value) == f"all checkpoints to resume from are damaged:\n  {lost}: it is missing"
    assert refused.value.hint.startswith(f"restore one of them under {root} from a backup")
    assert records(run) == []


@pytest.mark.parametrize("warm_start", [False, True])
def test_only_weights_may_come_from_a_checkpoint_without_a_manifest(
    make_run: MakeRun, warm_start: bool
) -> None:
    uuid = stored(make_run(), 3)
    info = make_run(checkpoints=(uuid,), warm_start=warm_start)
    path = Path(info.checkpoint_dir) / uuid
    (path / "manifest.json").unlink()
    run = ChiefRun(info)
    if warm_start:
        assert run.open_checkpoint() == (path, uuid)
    else:
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            run.open_checkpoint()
    run.close()


def test_a_script_that_continues_from_a_checkpoint_is_recorded_with_its_batches(make_run: MakeRun) -> None:
    uuid = stored(make_run(), 6)
    run = ChiefRun(make_run())
    run.restored(uuid)
    assert records(run) == [Restored(uuid, 6)]


def test_a_new_run_removes_the_drafts_of_dead_ones(make_run: MakeRun) -> None:
    info = make_run()
    uuid = stored(info, 3)
    draft = Path(info.checkpoint_dir) / contract_checkpoints.draft_name(uuid)
    draft.mkdir()
    fill(draft)
    ChiefRun(info).close()
    assert kept(info) == [uuid]


def test_a_run_stops_once_it_is_asked_to(make_run: MakeRun) -> None:
    run = ChiefRun(make_run())
    assert (run.should_stop(), run.asked_to_stop(), run.barrier()) == (False, False, True)
    run.ask_to_stop()
    assert (run.should_stop(), run.asked_to_stop()) == (True, True)
    run.close()


def shared(
    together: Together, info: RunInfo, body: Callable[[SharedRun, ChiefRun | None], Any]
) -> tuple[list[Any], list[Record]]:
    """Run a function on three ranks; what each of them returned, and the records."""
    chief = ChiefRun(info)

    def rank(group: SocketGroup) -> Any:
        mine = chief if group.rank == 0 else None
        return body(SharedRun(info, group, mine), mine)

    return together(3, rank), records(chief)


def test_rank_0_alone_reports_for_all(make_run: MakeRun, together: Together) -> None:
    def body(run: SharedRun, _: ChiefRun | None) -> Stage | None:
        loss = {"loss": float(run.group.rank)}
        run.enter(Stage.TRAIN)
        run.report_training(1, loss)
        run.report_windows([(2, loss)])
        run.report_metrics("own", 2, loss)
        run.report_validation(2, loss)
        run.report_progress(1.0)
        return run.stage

    stages, found = shared(together, make_run(), body)
    assert stages == [Stage.TRAIN] * 3
    assert found == [
        StageEntered(Stage.TRAIN),
        Training(1, {"loss": 0.0}),
        Training(2, {"loss": 0.0}),
        Measured("own", 2, {"loss": 0.0}),
        Validation(2, {"loss": 0.0}),
        Progress(1.0),
    ]


def test_all_ranks_fill_one_checkpoint_which_all_see_and_open(make_run: MakeRun, together: Together) -> None:
    info = make_run()

    def body(run: SharedRun, _: ChiefRun | None) -> tuple[object, ...]:
        with run.store_checkpoint(4, {}) as (path, uuid):
            (path / f"rank{run.group.rank}").write_text("1234")
        return uuid, (Path(info.checkpoint_dir) / uuid).is_dir(), run.open_checkpoint()

    seen, found = shared(together, info, body)
    (uuid,) = kept(info)
    path = Path(info.checkpoint_dir) / uuid
    assert seen == [(uuid, True, (path, uuid))] * 3
    files = contract_checkpoints.resources(path)
    assert sorted(files) == ["metadata.json", "rank0", "rank1", "rank2"]
    assert found == [Checkpoint(uuid, 4, files, metadata(4)), Restored(uuid, 4)]


@pytest.mark.parametrize(("failing", "remains"), [(0, True), (2, False)])
def test_rank_0_decides_about_the_spare_checkpoint_that_all_fill(
    make_run: MakeRun, together: Together, failing: int, remains: bool
) -> None:
    info = make_run()

    def body(run: SharedRun, _: ChiefRun | None) -> bool:
        def fill_mine(path: Path) -> None:
            (path / f"rank{run.group.rank}").write_text("1234")

        try:
            with run.spare_checkpoint(4, {}, fill_mine):
                assert 1 / (run.group.rank - failing)
        except ZeroDivisionError:
            return True
        return False

    failed, found = shared(together, info, body)
    assert failed == [rank == failing for rank in range(3)]
    files = [sorted(one.resources) for one in found if isinstance(one, Checkpoint)]
    assert files == ([["metadata.json", "rank0", "rank1", "rank2"]] if remains else [])
    assert len(kept(info)) == len(files)


def test_all_ranks_stop_when_rank_0_is_asked_to(make_run: MakeRun, together: Together) -> None:
    def body(run: SharedRun, chief: ChiefRun | None) -> tuple[bool, ...]:
        before = run.should_stop()
        if chief:
            chief.ask_to_stop()
        return before, run.asked_to_stop(), run.should_stop()

    answers, _ = shared(together, make_run(), body)
    assert answers == [(False, True, True), (False, False, True), (False, False, True)]


def test_ranks_meet_at_a_barrier(make_run: MakeRun, together: Together) -> None:
    answers, _ = shared(together, make_run(), lambda run, _: run.barrier())
    assert answers == [True] * 3


def test_a_barrier_that_a_rank_never_reaches_is_not_passed(make_run: MakeRun, together: Together) -> None:
    def body(run: SharedRun, _: ChiefRun | None) -> bool:
        if run.group.rank == 2:
            run.group.close()
            return False
        met = run.barrier()
        run.group.close()  # rank 1 waits for rank 0
        return met

    answers, _ = shared(together, make_run(), body)
    assert answers == [False] * 3
