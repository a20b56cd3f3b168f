"""Deletes and garbage-collects checkpoints of experiments that have ended; the lease is held."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.find import Found, find_checkpoint
from detbuild.checkpoint.retention import Collection, plan_collection, policy_of, sources
from detbuild.checkpoint.transfer import is_name, raise_if_unremovable
from detbuild.context.gitignore import compile_path
from detbuild.controller.book import JournaledState
from detbuild.controller.clock import SystemClock
from detbuild.controller.heed import apply_requests
from detbuild.controller.keeper import CheckpointManager
from detbuild.controller.lease import lease_at_the_end
from detbuild.errors import ConfigError, EngineError
from detbuild.store import journal
from detbuild.store.experiment_dir import config_of, storage_of
from detbuild.store.home import Home
from detbuild.store.registry import registered
from detbuild.store.state import StopVerb, fold, load, run_records
from determined._checkpoints import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from detbuild.checkpoint.retention import Policy
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._records import Checkpoint

_POLL: Final = 0.05  # seconds
_TRIES: Final = 3  # while a user waits: three seconds, plus network time


def end_local(journaled: JournaledState, end: journal.ExperimentFinished) -> None:
    """End an experiment without a controller, after its checkpoints are uploaded and collected.

    Ctrl-C ends it at once, and so does a kill if the bucket does not respond; what is not uploaded by then
    stays on this host, as the state shows.

    Args:
        journaled: The experiment; the caller holds its lease.
        end: The fact to journal then.
    """
    folder = journaled.folder
    manager = CheckpointManager(journaled, config_of(folder), SystemClock())
    home = Home.open(folder.path.parent.parent)
    try:
        while manager.before_end(home, hurry=journaled.state.stop == StopVerb.KILL):
            try:
                manager.step()
                manager.clock.wait(_POLL)
                apply_requests(journaled)
            except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time)
                manager.give_up()
        journaled.record(end)
        _finish(manager)
    finally:
        manager.close()


def restore_files(journaled: JournaledState, uuids: tuple[str, ...]) -> str:
    """Restore the first of them that is whole to this host; return why that failed, or "".

    Args:
        journaled: An experiment without a controller; the caller holds its lease.
        uuids: Checkpoints that a run may start from.
    """
    on_host = storage_of(journaled.folder).on_host
    if not uuids or on_host is None or not verify(on_host / uuids[0]):
        return ""
    manager = CheckpointManager(journaled, config_of(journaled.folder), SystemClock(), tries=_TRIES)
    try:
        while manager.restore_files(uuids):
            if manager.given_up:
                return manager.stored.trouble
            manager.step()
            manager.clock.wait(_POLL)
    finally:
        manager.close()
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
    folder = home.experiment(experiment_id)
    return policy_of(config_of(folder), folder)


def collect(
    home: Home, experiment_id: int, wanted: Policy | None = None, *, dry_run: bool = False
) -> Collection:
    """Delete checkpoints outside a retention policy, by default the experiment's own.

    Args:
        home: The detbuild home.
        experiment_id: An experiment that has ended.
        wanted: The policy to apply instead.
        dry_run: Only return them.

    Raises:
        ConfigError: It has not ended, or its checkpoints are inside its containers.
        EngineError: Files cannot be removed; the next call removes them.
        LeaseError: Its controller still finishes its work.
    """
    folder = home.experiment(experiment_id)
    with _alone(folder):
        rule = wanted or policy(home, experiment_id)
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
    compiled = [one for glob in globs if (one := compile_path(glob.encode()))]
    for checkpoint in _written(folder):
        if checkpoint.uuid in there:
            files = stored.left(checkpoint)
            paths = tuple(path for path in files if any(one.matches(path.encode()) for one in compiled))
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
            f"deleted checkpoints could not be removed: {manager.stored.trouble}",
            hint=f"run `detbuild checkpoint gc {folder.id}` to retry",
        )


def _finish(manager: CheckpointManager) -> None:
    while not manager.done:
        manager.step()
        manager.clock.wait(_POLL)


def _refuse_needed(home: Home, uuids: Iterable[str]) -> None:
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
