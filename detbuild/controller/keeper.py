"""Manages the checkpoints of one experiment: uploads, restores and deletes them by the retention policy.

The controller calls `step` in each of its own steps. It never blocks: a worker process does the transfers.
What must survive a crash is journaled before it is done.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint import transfer
from detbuild.checkpoint.bucket import address_of
from detbuild.checkpoint.owners import foreign_reason
from detbuild.checkpoint.retention import plan_collection, policy_of
from detbuild.checkpoint.worker import Job, TransferWorker
from detbuild.controller.arrivals import CheckpointWatcher
from detbuild.errors import EngineError
from detbuild.store import journal
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.files import sweep_temporaries
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detbuild.checkpoint.retention import Policy
    from detbuild.checkpoint.worker import TransferResult
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.book import JournaledState
    from detbuild.controller.clock import Clock
    from detbuild.store.state import StateFold, Stored

_FIRST: Final = 1.0  # seconds of the first back-off
_LONGEST: Final = 60.0
_LAST_TRIES: Final = 8  # retries when no other work is left: about two minutes
_AT_ONCE: Final = 50  # checkpoints deleted by one job
_WAITS: Final = "waiting for its checkpoint uploads"
_IDLE: Final = 60.0  # seconds without work after which the worker process ends


def _origins(state: StateFold) -> set[str]:
    """Return the checkpoints of other trials that a run may be starting from."""
    return {uuid for trial_id in state.running for uuid in state.trials[trial_id].source}


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
        address = address_of(config.checkpoint_storage)
        self._carrier = TransferWorker(address) if address else None
        self._home = Home.open(journaled.folder.path.parent.parent)
        self._owner = f"{self._home.id}/{journaled.folder.id}"
        self._watcher = CheckpointWatcher(journaled.folder)
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
            self._say(self.stored.trouble or _WAITS)
            return _WAITS
        for uuid in self._uploads:
            if uuid not in self.stored.intended:  # so that the next controller uploads them
                self.journaled.record(journal.UploadIntended(uuid=uuid, free=False))
        return "" if self._collected else self._collect(home)

    def _collect(self, home: Home) -> str:
        if self.clock.now() < self._again_at and not self.given_up:
            return self.stored.trouble
        try:
            self.collect(home, policy_of(self._config, self.journaled.folder))
        except EngineError as error:
            self._failed(f"cannot delete checkpoints: {error}")
            return "" if self.given_up else str(error)
        return ""

    def collect(self, home: Home, policy: Policy) -> tuple[str, ...]:
        """Mark what the policy does not keep as deleted, for `step` to remove its files; return the UUIDs."""
        found = plan_collection(home, self.journaled.folder, policy)
        if self._root is not None:
            self.delete(found.garbage)
        self._collected = True
        return found.garbage if self._root is not None else ()

    def delete(self, uuids: Sequence[str]) -> None:
        """Mark checkpoints as deleted; `step` then removes their files. Foreign ones are skipped."""
        own = tuple(uuid for uuid in uuids if uuid not in self.stored.foreign)
        if own:
            self.journaled.record(journal.CheckpointsDeleted(uuids=own))
            gone = set(own)
            self._uploads = deque(uuid for uuid in self._uploads if uuid not in gone)

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
            self._say(f"checkpoints are not uploaded yet: run `detbuild resume {self.journaled.folder.id}`")

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
            self._failed(f"{what} ({self._carrier.address.url()}): {error}")
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
        self._say(_WAITS if self._ending and self._uploads else "")

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
        self._say(what)

    def _say(self, trouble: str) -> None:
        if self.stored.trouble != trouble:
            self.journaled.record(journal.StorageBlocked(why=trouble))

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
            self._say("")

    def _remove_from(self, root: Path, stored: Stored) -> None:
        if stored.pending_delete:
            uuids = tuple(sorted(stored.pending_delete))
            for uuid in uuids:
                transfer.remove_local(root, uuid)
            self.journaled.record(journal.CheckpointsRemoved(uuids=uuids))
        for uuid in tuple(stored.partial_pending_delete):
            transfer.remove_local_files(root, uuid, stored.partly[uuid])
            self.journaled.record(journal.FilesRemoved(uuid=uuid))
