from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from detbuild.checkpoint import transfer, worker
from detbuild.checkpoint.find import checkpoints_of
from detbuild.checkpoint.worker import Job, TransferResult, run_job
from detbuild.controller import checkpoints as controller_checkpoints
from detbuild.controller import requests
from detbuild.controller.local import run_here
from detbuild.controller.requests import request_continue
from detbuild.errors import EngineError
from detbuild.runtime.slot_queue import Limits
from detbuild.store import journal
from detbuild.store.home import Home
from detbuild.store.records import read_run
from detbuild.store.registry import Model, Version, create_model, register
from detbuild.store.state import Stored, load
from determined._contract.checkpoints import verify
from determined._contract.records import Ended, ExitReason, Training
from determined._run.events import EventFile
from tests.fakes import Crash, Effects, FakeEngine
from tests.faults.searching import Halving, Heirs, Random, made
from tests.faults.training import Rig, expected, restore, rig, save, submit, train, trajectory

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.method import SearchMethod
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._contract.run_info import RunInfo


@dataclass
class MemoryBucket:
    """As detbuild.checkpoint.bucket.CheckpointBucket, with faults."""

    files: dict[str, bytes] = field(default_factory=dict)
    away: float = 0  # so many jobs fail
    jobs: list[Job] = field(default_factory=list)

    def sizes(self, uuid: str) -> dict[str, int]:
        start = f"{uuid}/"
        return {key[len(start) :]: len(body) for key, body in self.files.items() if key.startswith(start)}

    def put(self, file: Path, uuid: str, path: str) -> None:
        self.files[f"{uuid}/{path}"] = file.read_bytes()

    def get(self, uuid: str, path: str, file: Path) -> None:
        file.write_bytes(self.files[f"{uuid}/{path}"])

    def write(self, uuid: str, path: str, body: bytes) -> None:
        self.files[f"{uuid}/{path}"] = body

    def read(self, uuid: str, path: str) -> bytes | None:
        return self.files.get(f"{uuid}/{path}")

    def remove(self, uuid: str, path: str) -> None:
        self.files.pop(f"{uuid}/{path}", None)

    def whole(self) -> set[str]:
        """The checkpoints that are in it, with every file that their manifests name."""
        uuids = {key.split("/")[0] for key in self.files if key.endswith("/manifest.json")}
        for uuid in uuids:
            wanted = json.loads(self.files[f"{uuid}/manifest.json"])["files"]
            assert {path: entry["size"] for path, entry in wanted.items()}.items() <= self.sizes(uuid).items()
        return uuids


class InstantCarrier:
    """Does a job when it is asked for the answer, in this process."""

    bucket: MemoryBucket

    def __init__(self, storage: object) -> None:
        self.storage = storage
        self._job: Job | None = None

    @property
    def busy(self) -> bool:
        return self._job is not None

    def ask(self, job: Job) -> None:
        self._job = job

    def answer(self, *, wait: float = 0.0) -> TransferResult | None:
        job, self._job = self._job, None
        if job is None:
            return None
        self.bucket.jobs.append(job)
        if self.bucket.away > 0:
            self.bucket.away -= 1
            return TransferResult(job=job, error="the network is cut")
        try:
            run_job(job, self.bucket)  # type: ignore[arg-type]
        except transfer.DamagedError as error:
            return TransferResult(job=job, damaged=str(error))
        except transfer.ForeignError as error:
            return TransferResult(job=job, foreign=str(error))
        return TransferResult(job=job)

    def close(self) -> None:
        self._job = None


def start_of(trial_id: int) -> float:
    return float(str(made(trial_id).hparams["start"]))


CLOUD = {"checkpoint_storage": {"type": "s3", "bucket": "lab"}}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryBucket:
    made = MemoryBucket()
    monkeypatch.setattr(worker, "TransferWorker", InstantCarrier)
    monkeypatch.setattr(InstantCarrier, "bucket", made, raising=False)
    return made


def run(tried: Rig, *, at_most: int = 3000) -> None:
    """As a controller does: to the end, and until its checkpoints are where they belong."""
    controller = tried.controller()
    for _ in range(at_most):
        if controller.done:
            return
        controller.step()
        tried.clock.wait(0.2)
    raise AssertionError(f"not done: {tried.state()}")


def states(tried: Rig) -> dict[int, str]:
    return {one.checkpoint.steps_completed: one.state for one in checkpoints_of(tried.folder)}


def uuids(tried: Rig, state: str) -> set[str]:
    return {one.checkpoint.uuid for one in checkpoints_of(tried.folder) if one.state == state}


def local(tried: Rig) -> set[str]:
    return {path.name for path in tried.folder.checkpoints.iterdir()}


# on this host


def test_at_the_end_only_the_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    run(tried)
    assert states(tried) == {6: "COMPLETED", 4: "DELETED", 2: "COMPLETED"}
    assert local(tried) == uuids(tried, "COMPLETED")


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({"save_trial_best": 0, "save_trial_latest": 0}, []),
        ({"save_trial_best": 0, "save_trial_latest": 2}, [6, 4]),
        ({"save_experiment_best": 9, "save_trial_latest": 0}, [6, 4, 2]),
    ],
)
def test_the_policy_is_the_configs(tmp_path: Path, policy: dict[str, int], kept: list[int]) -> None:
    tried = rig(tmp_path, changes={"checkpoint_storage": policy})
    run(tried)
    assert [steps for steps, state in states(tried).items() if state == "COMPLETED"] == kept
    assert local(tried) == uuids(tried, "COMPLETED")


@pytest.mark.parametrize("kind", ["shared_fs", "directory"])
def test_the_checkpoints_of_a_shared_directory_are_collected_there(tmp_path: Path, kind: str) -> None:
    shared = tmp_path / "shared"
    (shared / "of another experiment").mkdir(parents=True)
    place = {"host_path": str(shared)} if kind == "shared_fs" else {"container_path": "/shared"}
    changes = {
        "checkpoint_storage": {"type": kind, "save_trial_best": 0, **place},
        "bind_mounts": [{"host_path": str(shared), "container_path": "/shared"}],
    }

    tried = rig(tmp_path / "home", changes=changes)
    run(tried)
    assert {path.name for path in shared.iterdir()} == {"of another experiment", *uuids(tried, "COMPLETED")}
    assert len(uuids(tried, "COMPLETED")) == 1


def test_what_is_registered_stays_whatever_the_policy_says(tmp_path: Path) -> None:
    tried = rig(tmp_path, changes={"checkpoint_storage": {"save_trial_best": 0, "save_trial_latest": 0}})
    controller = tried.controller()
    while len(list(tried.folder.checkpoints.glob("[!.]*"))) < 1:
        controller.step()
        tried.clock.wait(0.2)
    (first,) = local(tried)
    create_model(tried.home, Model(name="net", created=0.0))
    register(tried.home, "net", Version(version=1, checkpoint=first, created=0.0))
    run(tried)
    assert (states(tried)[2], local(tried)) == ("COMPLETED", {first})


def test_nothing_is_removed_while_the_registry_cannot_be_read(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    (tried.home.path / "models").mkdir()
    (tried.home.path / "models" / "net.json").write_text("{")
    run(tried)
    assert (tried.state().state, len(local(tried))) == ("COMPLETED", 3)
    assert "cannot delete checkpoints: cannot read" in tried.state().why


def test_a_forged_record_removes_nothing_outside(tmp_path: Path) -> None:
    tried = rig(
        tmp_path / "home", changes={"checkpoint_storage": {"save_trial_best": 0, "save_trial_latest": 0}}
    )
    controller = tried.controller()
    controller.step()
    events = tried.folder.run(1, 0).events
    with events.open("ab") as file:
        for seq, name in enumerate(("../../victim", "..", ".", "/etc", ""), start=1000):
            line = {
                "seq": seq,
                "run": "1-0",
                "time": 0,
                "kind": "checkpoint",
                "uuid": name,
                "steps_completed": 1,
            }
            file.write(json.dumps({**line, "resources": {}, "metadata": {}}).encode() + b"\n")
    victim = tried.home.path / "experiments" / "victim"
    victim.mkdir()
    run(tried)
    assert victim.is_dir()
    assert tried.folder.exists


# in the cloud


def test_checkpoints_are_uploaded_and_all_but_the_newest_leave_this_host(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    for _ in range(60):
        controller.step()
        tried.clock.wait(0.2)
        there = local(tried)
        if len(bucket.whole()) == 2 and len(there) == 1:
            break
    assert not controller.done
    run(tried)
    assert states(tried) == {6: "COMPLETED", 4: "DELETED", 2: "COMPLETED"}
    assert bucket.whole() == uuids(tried, "COMPLETED")
    assert (local(tried), len(bucket.files)) == (set(), 6)


def test_a_network_that_is_cut_stops_no_training_and_is_shown(tmp_path: Path, bucket: MemoryBucket) -> None:
    bucket.away = 5
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    shown = set()
    while not controller.done:
        controller.step()
        tried.clock.wait(0.2)
        shown.add(controller.context.state.snapshot().why)
    assert any("(s3://lab): the network is cut" in why for why in shown)
    assert (tried.state().state, tried.state().why) == ("COMPLETED", "")
    assert tried.reports() == expected()
    assert bucket.whole() == uuids(tried, "COMPLETED")


def test_an_experiment_whose_bucket_is_gone_ends_and_says_so_and_a_later_controller_tries_again(
    tmp_path: Path, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.away = float("inf")
    tried = rig(tmp_path, changes=CLOUD)
    run(tried, at_most=20000)
    assert tried.state().state == "COMPLETED"
    assert "the network is cut" in tried.state().why
    assert local(tried) >= uuids(tried, "COMPLETED")
    assert Stored.of(entry.fact for entry in tried.folder.journal()).has_pending
    assert not requests.needs_controller(tried.folder)  # else its process would never end
    monkeypatch.setattr(requests, "start_detached", lambda *_: None)
    assert requests.has_work_left(tried.folder)
    assert requests.resume(tried.home) == (1,)
    bucket.away = 0
    run(tried)
    assert (tried.state().state, tried.state().why) == ("COMPLETED", "")
    assert bucket.whole() == uuids(tried, "COMPLETED")
    assert not Stored.of(entry.fact for entry in tried.folder.journal()).has_pending


def test_a_checkpoint_that_is_damaged_before_it_is_sent_is_not_kept_for_whole(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    bucket.away = 2
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    while not local(tried):
        controller.step()
        tried.clock.wait(0.2)
    (first,) = local(tried)
    (tried.folder.checkpoints / first / "state.json").write_text("{")
    run(tried)
    assert (states(tried)[2], first in bucket.whole()) == ("ERROR", False)


def test_a_trial_goes_on_from_a_checkpoint_that_is_in_the_cloud_alone(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    while len(bucket.whole()) < 2:
        controller.step()
        tried.clock.wait(0.2)
    for path in tried.folder.checkpoints.iterdir():
        shutil.rmtree(path)
    (container,) = tried.engine.containers.values()
    tried.engine.end(container.id, 137)
    run(tried)
    assert tried.reports() == expected()
    assert any(job.do == "restore" for job in bucket.jobs)
    assert [r.run for r in tried.state().trials[1].runs] == [0, 1]


def half(info: RunInfo) -> int:
    """Train three batches in this process, then fail."""
    save_and_end(info, 3, ExitReason.ERROR)
    return 1


def whole(info: RunInfo) -> int:
    save_and_end(info, 6, ExitReason.COMPLETED)
    return 0


def save_and_end(info: RunInfo, until: int, reason: ExitReason) -> None:
    checkpoints = Path(info.checkpoint_dir)
    with closing(EventFile(Path(info.run_dir) / "events.jsonl", info.name)) as events:
        batch, loss = restore(info, checkpoints, events)
        for number in range(batch + 1, until + 1):
            loss = loss * 0.9 + 1 / (number + loss)
            events.append(Training(number, {"loss": loss}))
        save(checkpoints, events, until, loss)
        events.append(Ended(reason))


def fail_here(tmp_path: Path) -> ExperimentFolder:
    """A local experiment that has failed after three batches, and has its checkpoint in the bucket alone."""
    folder = submit(Home.open(tmp_path), "", CLOUD)
    assert run_here(folder, half, lambda event: None).state == "ERROR"
    assert list(folder.checkpoints.iterdir()) == []
    request_continue(folder)
    return folder


def test_a_local_run_too_goes_on_from_a_checkpoint_that_is_in_the_cloud_alone(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    folder = fail_here(tmp_path)
    state = run_here(folder, whole, lambda event: None)
    (trial,) = state.trials.values()
    assert (state.state, len(trial.runs)) == ("COMPLETED", 2)
    told = [one for one in trajectory(folder, trial) if isinstance(one, Training)]
    assert told == [one for one in expected() if isinstance(one, Training)]
    assert (list(folder.checkpoints.iterdir()), len(bucket.whole())) == ([], 1)


def test_a_local_run_begins_when_its_checkpoint_can_be_restored(tmp_path: Path, bucket: MemoryBucket) -> None:
    folder = fail_here(tmp_path)
    bucket.away = 2
    state = run_here(folder, whole, lambda event: None)
    assert (state.state, len(state.trials[1].runs)) == ("COMPLETED", 2)
    blocked = [e.fact.why for e in folder.journal() if isinstance(e.fact, journal.StorageBlocked)]
    assert any("the network is cut" in why for why in blocked)


def test_a_kill_waits_for_no_bucket_that_does_not_answer(tmp_path: Path, bucket: MemoryBucket) -> None:
    bucket.away = float("inf")
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    while (
        "the network is cut" not in controller.context.state.snapshot().why or controller.context.state.living
    ):
        controller.step()
        tried.clock.wait(0.2)
    asked = len(bucket.jobs)
    tried.folder.request("kill")
    run(tried)
    assert (tried.state().over, len(bucket.jobs) - asked <= 1) == (True, True)
    assert "the network is cut" in tried.state().why


def test_a_kill_of_a_local_run_that_uploads_is_heeded_too(tmp_path: Path, bucket: MemoryBucket) -> None:
    def killed(info: RunInfo) -> int:
        code = whole(info)
        folder.request("kill")
        return code

    folder = submit(Home.open(tmp_path), "", CLOUD)
    folder.write(replace(folder.header(), local=True), {})
    bucket.away = float("inf")
    state = run_here(folder, killed, lambda event: None)
    assert (state.over, len(bucket.jobs)) == (True, 1)


def test_ctrl_c_while_a_local_run_uploads_leaves_that_for_later(tmp_path: Path, bucket: MemoryBucket) -> None:
    def interrupt() -> None:
        while "the network is cut" not in load(folder).why:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    folder = submit(Home.open(tmp_path), "", CLOUD)
    folder.write(replace(folder.header(), local=True), {})
    bucket.away = float("inf")
    threading.Thread(target=interrupt, daemon=True).start()
    state = run_here(folder, whole, lambda event: None)
    assert (state.state, bucket.whole()) == ("COMPLETED", set())
    assert "run `detbuild resume 1`" in state.why
    bucket.away = 0
    assert requests.resume(Home.open(tmp_path)) == (1,)
    assert len(bucket.whole()) == 1


def test_a_newest_one_that_is_damaged_here_and_there_is_passed_over(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD)
    controller = tried.controller()
    while len(bucket.whole()) < 2:
        controller.step()
        tried.clock.wait(0.2)
    newest = checkpoints_of(tried.folder)[0].checkpoint.uuid
    bucket.files[f"{newest}/state.json"] = b"{"
    shutil.rmtree(tried.folder.checkpoints / newest, ignore_errors=True)
    (container,) = tried.engine.containers.values()
    tried.engine.end(container.id, 137)
    run(tried)
    assert tried.reports() == expected()
    assert [json.loads(line)["kind"] for line in tried.folder.run(1, 1).events.read_bytes().splitlines()][
        1:3
    ] == ["checkpoint_rejected", "restored"]


@pytest.mark.parametrize(
    ("method", "lengths"),
    [
        (lambda _: Random(4, at_once=2), (6, 6, 6, 6)),
        (lambda _: Halving(), (6, 4, 2, 2)),
        (lambda _: Heirs(), (4,)),
    ],
    ids=["random", "in segments", "heirs"],
)
def test_the_checkpoints_of_a_search_come_back_when_they_are_needed(
    tmp_path: Path,
    bucket: MemoryBucket,
    method: Callable[[ExperimentConfig], SearchMethod],
    lengths: tuple[int, ...],
) -> None:
    tried = rig(tmp_path, changes=CLOUD, method=method)
    lost: set[str] = set()
    controller = tried.controller()
    while not controller.done:
        controller.step()
        tried.clock.wait(0.2)
        if not controller.context.state.running:
            for uuid in (local(tried) & bucket.whole()) - lost:
                shutil.rmtree(tried.folder.checkpoints / uuid)
                lost.add(uuid)
    assert {trial.state for trial in tried.state().trials.values()} == {"COMPLETED"}
    for trial_id, length in enumerate(lengths, start=1):
        assert tried.reports(trial_id) == expected(length, start_of(trial_id))
    assert bucket.whole() == uuids(tried, "COMPLETED")
    assert local(tried) == set()


def test_an_heir_starts_from_a_checkpoint_that_is_fetched_for_it(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD, method=lambda _: Heirs())
    run(tried)
    restored = read_run(tried.folder.run(2, 0), over=True).restored
    assert restored is not None
    assert restored.uuid in {job.uuid for job in bucket.jobs if job.do == "restore"}
    assert restored.uuid in bucket.whole()


def test_a_controller_that_takes_over_keeps_what_a_run_is_starting_from(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD, method=lambda _: Heirs())
    controller = tried.controller()
    while 2 not in controller.context.state.running:
        controller.step()
        tried.clock.wait(0.2)
    fetched = next(job.uuid for job in bucket.jobs if job.do == "restore")
    manager = tried.controller().manager
    for _ in range(20):
        manager.step()
    assert fetched in local(tried)
    run(tried)
    assert local(tried) == set()


def test_a_trial_whose_checkpoint_cannot_be_fetched_keeps_no_other_from_its_place(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    tried = rig(tmp_path, changes=CLOUD, method=lambda _: Random(3, at_once=3))
    tried.limits = Limits(cpu_trials=1)
    controller = tried.controller()
    while not bucket.whole():
        controller.step()
        tried.clock.wait(0.2)
    tried.folder.request("pause")
    run(tried)
    bucket.away = float("inf")
    for path in tried.folder.checkpoints.iterdir():
        shutil.rmtree(path)
    tried.folder.request("activate")
    controller = tried.controller()
    while 2 not in controller.context.state.running:
        controller.step()
        tried.clock.wait(0.2)
    assert "restoring checkpoint" in controller.context.state.trials[1].why
    bucket.away = 0
    run(tried)
    assert [tried.reports(number) for number in (1, 2, 3)] == [expected(6, start_of(n)) for n in (1, 2, 3)]


def test_every_checkpoint_of_the_bucket_is_whole_whatever_crashes(
    tmp_path: Path, bucket: MemoryBucket
) -> None:
    undisturbed = rig(tmp_path / "undisturbed", changes=CLOUD)
    run(undisturbed)
    for number in range(1, undisturbed.effects.count + 2):
        when: Literal["before", "after"]
        for when in ("before", "after"):
            bucket.files.clear()
            effects = Effects(crash_at=number, crash_when=when)
            tried = rig(
                tmp_path / f"{number}-{when}", engine=FakeEngine(train, effects=effects), changes=CLOUD
            )
            with suppress(Crash):
                run(tried)
            effects.crash_at = 0
            run(tried)
            assert tried.reports() == expected()
            assert states(tried) == {6: "COMPLETED", 4: "DELETED", 2: "COMPLETED"}
            assert bucket.whole() == uuids(tried, "COMPLETED")
            assert (local(tried), len(bucket.files)) == (set(), 6)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_search_with_its_checkpoints_in_a_bucket_outlives_a_crash_at_any_effect(
    tmp_path: Path, bucket: MemoryBucket, when: Literal["before", "after"]
) -> None:
    undisturbed = rig(tmp_path / "undisturbed", changes=CLOUD, method=lambda _: Heirs())
    run(undisturbed)
    for number in range(1, undisturbed.effects.count + 2):
        bucket.files.clear()
        effects = Effects(crash_at=number, crash_when=when)
        engine = FakeEngine(train, effects=effects)
        tried = rig(tmp_path / str(number), engine=engine, changes=CLOUD, method=lambda _: Heirs())
        with suppress(Crash):
            run(tried)
        effects.crash_at = 0
        run(tried)
        assert tried.reports(1) == expected(4, start_of(1))
        assert [len(trial.runs) for trial in tried.state().trials.values()] == [1, 1]
        restored = read_run(tried.folder.run(2, 0), over=True).restored
        assert restored is not None
        assert restored.uuid in bucket.whole()
        assert (bucket.whole(), local(tried)) == (uuids(tried, "COMPLETED"), set())


def count_removals(monkeypatch: pytest.MonkeyPatch, steps: Effects) -> None:
    """Every file and directory of a checkpoint is removed one by one, as an effect."""

    def counted(effect: Callable[..., None], is_directory: bool) -> Callable[..., None]:
        def remove(name: str, *, dir_fd: int | None = None) -> None:
            with suppress(FileNotFoundError):
                mode = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode
                if dir_fd is not None and stat.S_ISDIR(mode) == is_directory:
                    with steps(f"remove {name}"):
                        return effect(name, dir_fd=dir_fd)
            return effect(name, dir_fd=dir_fd)

        return remove

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name), name == "rmdir"))


@pytest.mark.parametrize("number", range(1, 14))
def test_no_listed_checkpoint_is_without_files_whatever_crashes_while_they_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    steps = Effects(crash_at=number)
    tried = rig(tmp_path, changes={"checkpoint_storage": {"save_trial_best": 0}})
    count_removals(monkeypatch, steps)
    with suppress(Crash):
        run(tried)
    listed = uuids(tried, "COMPLETED")
    assert [verify(tried.folder.checkpoints / uuid) for uuid in listed] == [[]] * len(listed)
    crashed = steps.count == number
    steps.crash_at = 0
    run(tried)
    assert {path.name for path in tried.folder.checkpoints.iterdir()} == uuids(tried, "COMPLETED")
    assert len(listed) == 1
    assert crashed == (number <= 8)  # two checkpoints, each a directory with three files


def test_a_person_who_deletes_is_told_soon_that_the_bucket_is_away_and_the_next_call_finishes_it(
    tmp_path: Path, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = rig(tmp_path, changes=CLOUD)
    run(tried)
    monkeypatch.setattr(controller_checkpoints, "SystemClock", lambda: tried.clock)
    first, *others = sorted(bucket.whole())
    bucket.away, jobs = float("inf"), len(bucket.jobs)
    with pytest.raises(EngineError, match="the network is cut"):
        controller_checkpoints.delete(tried.home, [first])
    assert (len(bucket.jobs) - jobs, uuids(tried, "COMPLETED")) == (3, set(others))
    bucket.away = 0
    controller_checkpoints.collect(tried.home, 1)
    assert bucket.whole() == set(others)


# a real server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    from tests.s3 import s3_server

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with s3_server() as server:
        yield server


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 3, 4, 5, 9, 14, 19])
def test_a_killed_upload_leaves_no_half_checkpoint_and_is_finished(
    tmp_path: Path, s3, number: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    carriers = []

    class Watched(worker.TransferWorker):
        def __init__(self, address) -> None:
            super().__init__(address)
            carriers.append(self)

    monkeypatch.setattr(worker, "TransferWorker", Watched)
    s3.kill_at, s3.kill_after = number, after
    s3.victim = lambda: next((one.pid for one in carriers if one.pid), None)
    tried = rig(tmp_path, changes={"checkpoint_storage": {**s3.storage(), "save_trial_latest": 3}})
    controller = tried.controller()
    try:
        deadline = time.monotonic() + 60
        while not controller.done and time.monotonic() < deadline:
            controller.step()
            time.sleep(0.01)
            tried.clock.wait(0.2)
    finally:
        controller.manager.close()
    assert states(tried) == {6: "COMPLETED", 4: "COMPLETED", 2: "COMPLETED"}
    there = s3.keys("nets/")
    for uuid in uuids(tried, "COMPLETED"):
        found = json.loads(there[f"nets/{uuid}/manifest.json"])["files"]
        assert {f"nets/{uuid}/{path}" for path in found} <= there.keys()
    assert (len(there), local(tried)) == (9, set())
    assert tried.reports() == expected()


def test_a_keeper_of_a_local_storage_starts_no_process(tmp_path: Path) -> None:
    assert rig(tmp_path).controller().manager._carrier is None
