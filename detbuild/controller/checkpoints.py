"""Manages the checkpoints of one experiment: uploads, restores and deletes them by the retention policy.

The controller calls `step` in each of its own steps. It never blocks: a worker process does the transfers.
What must survive a crash is journaled before it is done. The functions below it delete and garbage-collect
checkpoints of experiments that have ended, under the lease.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint import transfer
from detbuild.checkpoint.owners import foreign_reason
from detbuild.checkpoint.transfer import is_name, raise_if_unremovable
from detbuild.controller.lease import lease_at_the_end
from detbuild.controller.retry import SystemClock
from detbuild.controller.state import JournaledState
from detbuild.errors import ConfigError, EngineError
from detbuild.store import journal
from detbuild.store.experiment_dir import checkpoint_storage, config_of, storage_of
from detbuild.store.files import sweep_temporaries
from detbuild.store.home import Home
from detbuild.store.records import RecordFile
from detbuild.store.state import fold, load, run_records
from determined._contract.records import Checkpoint
from determined._contract.untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from detbuild.checkpoint.find import Found
    from detbuild.checkpoint.retention import Collection, Policy
    from detbuild.checkpoint.worker import Job, TransferResult, TransferWorker
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.storage import StorageConfig
    from detbuild.controller.retry import Clock
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import StateFold, Stored

_FIRST: Final = 1.0  # seconds of the first back-off
_LONGEST: Final = 60.0
_LAST_TRIES: Final = 8  # retries when no other work is left: about two minutes
_AT_ONCE: Final = 50  # checkpoints deleted by one job
_WAITS: Final = "waiting for its checkpoint uploads"
_IDLE: Final = 60.0  # seconds without work after which the worker process ends
_Run = tuple[int, int]  # trial and run
_FETCHED: Final = 0  # not a trial ID
_POLL: Final = 0.05  # seconds
_TRIES: Final = 3  # while a user waits: three seconds, plus network time


def _origins(state: StateFold) -> set[str]:
    """Return the checkpoints of other trials that a run may be starting from."""
    return {uuid for trial_id in state.running for uuid in state.trials[trial_id].source}


def _worker_of(storage: StorageConfig) -> TransferWorker | None:
    """Return what moves files to a bucket and back; None if checkpoints stay on this host."""
    if not storage.bucket_url:
        return None
    from detbuild.checkpoint.worker import TransferWorker

    return TransferWorker(storage)


class CheckpointManager:
    """The checkpoints of one experiment; the caller holds its lease.

    Args:
        journaled: The experiment's state.
        config: Its config.
        clock: For the back-off.
        tries: Failures in a row after which the remaining work is left to the next controller.
    """

    def __init__(
        self, journaled: JournaledState, config: ExperimentConfig, clock: Clock, *, tries: int = _LAST_TRIES
    ) -> None:
        self.journaled, self.clock = journaled, clock
        self._tries = tries
        self._config = config
        self._root = checkpoint_storage(config, journaled.folder).on_host
        self._carrier = _worker_of(config.checkpoint_storage)
        self._home = Home.open(journaled.folder.path.parent.parent)
        self._owner = f"{self._home.id}/{journaled.folder.id}"
        self._watcher = _CheckpointWatcher(journaled.folder)
        self._announced: deque[str] = deque()  # not claimed yet
        self._uploads: deque[str] = deque()
        self._wanted: deque[tuple[str, ...]] = deque()  # to restore: of each, the first that is whole
        self._tried: dict[tuple[str, ...], int] = {}  # how many of them are damaged
        self._ready: set[tuple[str, ...]] = set()
        self._held = _origins(journaled.state)  # not evictable: a run may be reading them
        self._failures = 0
        self._again_at = self._busy_at = clock.now()
        self._collected = self._ending = self._swept = False

    @property
    def stored(self) -> Stored:
        """The checkpoints as journaled."""
        return self.journaled.state.stored

    # called by the controller

    @property
    def done(self) -> bool:
        """Whether no work is left, or the remaining work is given up for now."""
        stored = self.stored
        with suppress(EngineError):  # `step` reports it
            self.poll()
        if self._announced and not self.given_up:
            return False
        if self._carrier is None:
            return not (stored.pending_delete or stored.partial_pending_delete) or self.given_up
        left = stored.pending_delete or stored.partial_pending_delete or self._uploads or self._evictable()
        return not self._carrier.busy and (not left or self.given_up)

    @property
    def given_up(self) -> bool:
        """Whether it failed too often in a row, so that the rest is left to the next controller."""
        return self._failures >= self._tries

    def step(self) -> None:
        """Do the next piece of work, unless it is in back-off."""
        now = self.clock.now()
        self._sweep()
        self.poll()
        if self._carrier is None:
            if now >= self._again_at:
                self._remove_here()
            return
        answer = self._carrier.answer()
        if answer is not None:
            self._apply(answer)
        if self._carrier.busy or now < self._again_at:
            return
        job = self._next()
        if job is not None:
            self._busy_at = now
            self._carrier.ask(job)
        elif now - self._busy_at > _IDLE:
            self._carrier.close()

    def before_end(self, home: Home, *, hurry: bool = False) -> str:
        """Return what the end of the experiment waits for, or "" if it may end. All trials have ended.

        Checkpoints that could not be uploaded stay on this host: the experiment's state shows it, and the
        next controller retries.

        Args:
            home: The home, whose other experiments may need checkpoints of this one.
            hurry: A kill was requested: give up after the first failure.
        """
        if hurry:
            self._tries = 1
        self.poll()
        if not self._ending:
            self._ending, self._failures, self._again_at = True, 0, self.clock.now()
            self._held.clear()  # no more runs start
        if self._uploads and not self.given_up:
            self._set_blocked(self.stored.blocked or _WAITS)
            return _WAITS
        for uuid in self._uploads:
            if uuid not in self.stored.intended:  # so that the next controller uploads them
                self.journaled.record(journal.UploadIntended(uuid=uuid, free=False))
        return "" if self._collected else self._collect(home)

    def _collect(self, home: Home) -> str:
        if self.clock.now() < self._again_at and not self.given_up:
            return self.stored.blocked
        try:
            self.collect(home)
        except EngineError as error:
            self._failed(f"cannot delete checkpoints: {error}")
            return "" if self.given_up else str(error)
        return ""

    def collect(self, home: Home) -> tuple[str, ...]:
        """Mark what the policy does not keep as deleted, for `step` to remove its files; return the UUIDs."""
        from detbuild.checkpoint.retention import plan_collection, policy_of

        folder = self.journaled.folder
        found = plan_collection(home, folder, policy_of(self._config, folder))
        if self._root is not None:
            self.delete(found.garbage)
        self._collected = True
        return found.garbage if self._root is not None else ()

    def delete(self, uuids: Sequence[str]) -> None:
        """Mark checkpoints as deleted; `step` then removes their files. Foreign ones are skipped."""
        own = tuple(uuid for uuid in uuids if uuid not in self.stored.foreign)
        if own:
            self.journaled.record(journal.CheckpointsDeleted(uuids=own))
            removed = set(own)
            self._uploads = deque(uuid for uuid in self._uploads if uuid not in removed)

    def restore_files(self, uuids: tuple[str, ...]) -> str:
        """Restore the first of them that is whole to this host; return what that waits for, or "".

        If none is whole anywhere, nothing waits: the run reports what is wrong with them.
        """
        if self._carrier is None or not uuids or uuids in self._ready:
            return ""
        if uuids not in self._wanted:
            self._wanted.append(uuids)
        return f"restoring checkpoint {uuids[self._tried.get(uuids, 0)]}"

    def give_up(self) -> None:
        """Leave the remaining work to the next controller, and stop transfers."""
        self.close()
        self._failures = self._tries
        if self._uploads:
            self._set_blocked(
                f"checkpoints are not uploaded yet: run `detbuild resume {self.journaled.folder.id}`"
            )

    def close(self) -> None:
        """End the worker process."""
        if self._carrier is not None:
            self._carrier.close()

    def poll(self) -> None:
        """Claim the checkpoints that runs have announced since the last poll.

        Raises:
            EngineError: A claim cannot be written.
        """
        self._announced.extend(self._watcher.new())
        while self._announced:
            uuid, stored = self._announced[0], self.stored
            if uuid not in stored.foreign and uuid not in stored.deleted:
                why = foreign_reason(self._home, self.journaled.folder, uuid)
                if why:
                    self._reject(uuid, why)
                elif self._carrier and uuid not in stored.uploaded and uuid not in stored.refused:
                    self._uploads.append(uuid)
            self._announced.popleft()

    def _reject(self, uuid: str, why: str) -> None:
        self.journaled.record(journal.CheckpointForeign(uuid=uuid, why=why))
        if uuid in self._uploads:
            self._uploads.remove(uuid)

    # in the cloud

    def _next(self) -> Job | None:
        from detbuild.checkpoint.worker import Job

        stored, root = self.stored, str(self._root)
        if self._wanted:
            uuids = self._wanted[0]
            return Job(do="restore", uuid=uuids[self._tried.get(uuids, 0)], root=root)
        if stored.pending_delete:
            uuids = tuple(sorted(stored.pending_delete)[:_AT_ONCE])
            return Job(do="remove", uuids=uuids, root=root, owner=self._owner, ours=self._begun(uuids))
        if stored.partial_pending_delete:
            uuid = min(stored.partial_pending_delete)
            return Job(
                do="remove files",
                uuid=uuid,
                root=root,
                paths=tuple(sorted(stored.partly[uuid])),
                owner=self._owner,
                ours=self._begun((uuid,)),
            )
        evictable = self._evictable()
        if evictable:
            return Job(do="prune", uuid=evictable, root=root)
        if self._uploads:
            uuid = self._uploads[0]
            return Job(
                do="upload" if uuid in stored.begun else "claim", uuid=uuid, root=root, owner=self._owner
            )
        return None

    def _evictable(self) -> str:
        return self._watcher.evictable(self.journaled.folder.checkpoints, self.stored, self._held)

    def _sweep(self) -> None:
        """Remove the drafts of crashed transfers, once."""
        if not self._swept and self._root is not None:
            transfer.sweep_drafts(self._root)
        if not self._swept:
            sweep_temporaries(self.journaled.folder.path)
        self._swept = True

    def _begun(self, uuids: Sequence[str]) -> tuple[str, ...]:
        return tuple(uuid for uuid in uuids if uuid in self.stored.begun)

    def _apply(self, answer: TransferResult) -> None:
        self._busy_at = self.clock.now()
        error = answer.error or (answer.damaged if answer.job.do == "remove files" else "")
        if error:
            assert self._carrier is not None
            what = f"cannot {answer.job.do} checkpoint {answer.job.uuid}".rstrip()
            self._failed(f"{what} ({self._carrier.storage.bucket_url}): {error}")
            return
        self._failures = 0
        uuid = answer.job.uuid
        if answer.foreign:
            self._reject(uuid, answer.foreign)
        match answer.job.do:
            case "claim" if uuid in self._uploads:
                self.journaled.record(journal.UploadIntended(uuid=uuid, free=True))
            case "restore":
                self._restored(damaged=bool(answer.damaged))
            case "remove":
                self.journaled.record(journal.CheckpointsRemoved(uuids=answer.job.uuids))
            case "remove files":
                self.journaled.record(journal.FilesRemoved(uuid=uuid))
            case "upload" if uuid in self._uploads:  # else it was deleted meanwhile
                refused = journal.UploadRejected(uuid=uuid, why=answer.damaged)
                self.journaled.record(refused if answer.damaged else journal.CheckpointUploaded(uuid=uuid))
                self._uploads.remove(uuid)
        self._set_blocked(_WAITS if self._ending and self._uploads else "")

    def _restored(self, *, damaged: bool) -> None:
        uuids = self._wanted[0]
        if damaged:
            self._tried[uuids] = self._tried.get(uuids, 0) + 1
        else:
            uuid = uuids[self._tried.get(uuids, 0)]
            self._held.add(uuid)
            self._watcher.fetched(uuid)
        if not damaged or self._tried[uuids] == len(uuids):
            self._wanted.popleft()
            self._tried.pop(uuids, None)
            self._ready.add(uuids)

    def _failed(self, what: str) -> None:
        self._failures += 1
        pause = min(_LONGEST, _FIRST * 2.0 ** min(self._failures - 1, 10))
        self._again_at = self.clock.now() + pause
        self._set_blocked(what)

    def _set_blocked(self, why: str) -> None:
        if self.stored.blocked != why:
            self.journaled.record(journal.StorageBlocked(why=why))

    # on this host

    def _remove_here(self) -> None:
        stored = self.stored
        if self._root is None or not (stored.pending_delete or stored.partial_pending_delete):
            return
        try:
            self._remove_from(self._root, stored)
        except EngineError as error:
            self._failed(str(error))
        else:
            self._failures = 0
            self._set_blocked("")

    def _remove_from(self, root: Path, stored: Stored) -> None:
        if stored.pending_delete:
            uuids = tuple(sorted(stored.pending_delete))
            for uuid in uuids:
                transfer.remove_local(root, uuid)
            self.journaled.record(journal.CheckpointsRemoved(uuids=uuids))
        for uuid in tuple(stored.partial_pending_delete):
            transfer.remove_local_files(root, uuid, stored.partly[uuid])
            self.journaled.record(journal.FilesRemoved(uuid=uuid))


class _CheckpointWatcher:
    """A reader of new checkpoints; it reads only runs that may still write, so long searches stay cheap."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._journal = journal.JournalFile(folder.journal_file)
        self._reading: dict[_Run, RecordFile] = {}
        self._over: set[_Run] = set()  # ended, but not read to the end yet
        self._going: set[int] = set()  # trials that have started and not ended
        self._written: dict[int, list[str]] = {}  # by trial: uuids that may be on this host, oldest first

    def _apply(self, fact: journal.Fact) -> None:
        match fact:
            case journal.RunIntended(trial_id=trial_id, run=run):
                self._reading.setdefault((trial_id, run), RecordFile(self._folder.run(trial_id, run)))
                self._going.add(trial_id)
            case journal.RunFinished(trial_id=trial_id, run=run):
                self._over.add((trial_id, run))
            case journal.TrialFinished(trial_id=trial_id):
                self._going.discard(trial_id)

    def new(self) -> Iterator[str]:
        """Yield the checkpoints written since the last call, in order for each trial."""
        for entry in self._journal.new():
            self._apply(entry.fact)
        for key, file in list(self._reading.items()):
            over = key in self._over
            for line in file.rest() if over else file.new():
                if isinstance(line.record, Checkpoint) and is_name(line.record.uuid):
                    self._written.setdefault(key[0], []).append(line.record.uuid)
                    yield line.record.uuid
            if over:
                del self._reading[key]
                self._over.discard(key)

    def fetched(self, uuid: str) -> None:
        """Note that a checkpoint, of any trial, is on this host again."""
        self._written.setdefault(_FETCHED, []).append(uuid)

    def evictable(self, root: Path, stored: Stored, held: AbstractSet[str]) -> str:
        """Return a checkpoint whose copy in `root` may be deleted, or "".

        It is uploaded, is not in `held`, and is not the newest of a trial that has not ended.
        """
        below = UntrustedDir(root)
        for number, written in list(self._written.items()):
            written[:] = [uuid for uuid in written if below.exists(uuid)]
            newest = 1 if number in self._going else 0
            for uuid in written[: len(written) - newest]:
                if uuid in stored.uploaded and uuid not in held:
                    return uuid
            if not written:
                del self._written[number]
        return ""


def finish_checkpoints(folder: ExperimentFolder) -> None:
    """Finish pending uploads and deletions of an ended experiment; the caller holds its lease.

    Failures are shown in the experiment's state.
    """
    manager = CheckpointManager(JournaledState(folder=folder), config_of(folder), SystemClock(), tries=_TRIES)
    try:
        _finish(manager)
    finally:
        manager.close()


def remove_all(folder: ExperimentFolder) -> None:
    """Delete every checkpoint of an ended experiment; the caller holds its lease.

    Raises:
        EngineError: Files cannot be removed; another call continues.
    """
    if storage_of(folder).on_host is None:
        return
    with _manager(folder) as manager:
        written = (one.uuid for one in _written(folder))
        manager.delete([uuid for uuid in written if is_name(uuid) and uuid not in manager.stored.deleted])


def policy(home: Home, experiment_id: int) -> Policy:
    """Return the experiment's retention policy."""
    from detbuild.checkpoint.retention import policy_of

    folder = home.experiment(experiment_id)
    return policy_of(config_of(folder), folder)


def collect(
    home: Home, experiment_id: int, replacement: Policy | None = None, *, dry_run: bool = False
) -> Collection:
    """Delete checkpoints outside a retention policy, by default the experiment's own.

    Args:
        home: The detbuild home.
        experiment_id: An experiment that has ended.
        replacement: The policy to apply instead.
        dry_run: Only return them.

    Raises:
        ConfigError: It has not ended, or its checkpoints are inside its containers.
        EngineError: Files cannot be removed; the next call removes them.
        LeaseError: Its controller still finishes its work.
    """
    from detbuild.checkpoint.retention import plan_collection

    folder = home.experiment(experiment_id)
    with _alone(folder):
        rule = replacement or policy(home, experiment_id)
        if dry_run:
            return plan_collection(home, folder, rule)
        with _manager(folder) as manager:
            found = plan_collection(home, folder, rule)
            manager.delete(found.garbage)
    return found


def delete(home: Home, uuids: Sequence[str], globs: Sequence[str] = ()) -> tuple[Found, ...]:
    """Delete checkpoints, or only those of their files that match a glob; return the checkpoints found.

    Args:
        home: The detbuild home.
        uuids: Checkpoints of experiments that have ended; a unique prefix is enough.
        globs: As in a shell; `**` matches any directories.

    Raises:
        ConfigError: A checkpoint does not exist, its experiment has not ended, or it is in use.
        EngineError: Files cannot be removed; `collect` removes them.
        LeaseError: A controller still finishes its work.
    """
    from detbuild.checkpoint.find import find_checkpoint

    found = {(one := find_checkpoint(home, uuid)).checkpoint.uuid: one for uuid in uuids}
    _refuse_needed(home, found)
    for number in sorted({one.experiment_id for one in found.values()}):
        own = [uuid for uuid, one in found.items() if one.experiment_id == number]
        folder = home.folder(number)
        with _alone(folder), _manager(folder) as manager:
            _delete(manager, own, globs)
    return tuple(found.values())


def _delete(manager: CheckpointManager, uuids: Sequence[str], globs: Sequence[str]) -> None:
    stored, folder = manager.stored, manager.journaled.folder
    for uuid in uuids:
        if uuid in stored.foreign:
            raise ConfigError(
                f"checkpoint {uuid} does not belong to experiment {folder.id}: it {stored.foreign[uuid]}"
            )
    there = [uuid for uuid in uuids if uuid not in stored.deleted and is_name(uuid)]
    if not globs:
        manager.delete(there)
        return
    from detbuild.context.gitignore import select_paths

    for checkpoint in _written(folder):
        if checkpoint.uuid in there:
            files = stored.remaining(checkpoint)
            paths = select_paths(files, globs)
            if len(paths) == len(files):
                manager.delete([checkpoint.uuid])
            elif paths:
                _refuse_damaged(folder, checkpoint.uuid, paths)
                manager.journaled.record(journal.FilesDeleted(uuid=checkpoint.uuid, paths=paths))


def _refuse_damaged(folder: ExperimentFolder, uuid: str, paths: Sequence[str]) -> None:
    """Raise if the checkpoint has entries that are not plain files; such a one is only deleted whole."""
    on_host = storage_of(folder).on_host
    if on_host is not None:
        raise_if_unremovable(on_host, uuid, paths)


def _written(folder: ExperimentFolder) -> Iterator[Checkpoint]:
    for trial in load(folder).trials.values():
        for run in run_records(folder, trial):
            yield from run.checkpoints


@contextmanager
def _alone(folder: ExperimentFolder) -> Iterator[None]:
    """Hold the lease of an experiment that has ended."""
    _refuse_going(folder)  # checked before the lease, which its controller holds
    with lease_at_the_end(folder.lock_file):
        _refuse_going(folder)
        yield


def _refuse_going(folder: ExperimentFolder) -> None:
    if not fold(folder.header(), folder.journal()).over:
        raise ConfigError(
            f"experiment {folder.id} has not ended: its controller manages its checkpoints",
            hint=f"run `detbuild wait {folder.id}` to wait, or `detbuild cancel {folder.id}` to end it",
        )


@contextmanager
def _manager(folder: ExperimentFolder) -> Iterator[CheckpointManager]:
    """Yield a checkpoint manager, and wait for its work after the block."""
    if storage_of(folder).on_host is None:
        raise ConfigError(
            f"the checkpoints of experiment {folder.id} exist only inside its containers",
            hint="mount a host directory at checkpoint_storage.container_path with bind_mounts",
        )
    manager = CheckpointManager(JournaledState(folder=folder), config_of(folder), SystemClock(), tries=_TRIES)
    try:
        manager.poll()
        yield manager
        _finish(manager)
    finally:
        manager.close()
    if manager.stored.pending_delete or manager.stored.partial_pending_delete:
        raise EngineError(
            f"deleted checkpoints could not be removed: {manager.stored.blocked}",
            hint=f"run `detbuild checkpoint gc {folder.id}` to retry",
        )


def _finish(manager: CheckpointManager) -> None:
    while not manager.done:
        manager.step()
        manager.clock.wait(_POLL)


def _refuse_needed(home: Home, uuids: Iterable[str]) -> None:
    from detbuild.checkpoint.retention import sources
    from detbuild.store.registry import registered

    models, started = registered(home), {uuid: number for number, uuid in sources(home)}
    for uuid in uuids:
        if uuid in models:
            raise ConfigError(
                f"checkpoint {uuid} is registered as {', '.join(models[uuid])}",
                hint="remove it from the registry first: see `detbuild model list`",
            )
        if uuid in started:
            raise ConfigError(
                f"checkpoint {uuid} is the source of experiment {started[uuid]}",
                hint=f"run `detbuild delete {started[uuid]}` first",
            )
