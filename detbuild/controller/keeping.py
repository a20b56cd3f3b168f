"""Deletes and collects the checkpoints of experiments that have ended, with their lease held."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.collect import Collection, plan_collection, policy_of
from detbuild.checkpoint.find import Found, find_checkpoint
from detbuild.checkpoint.protected import sources
from detbuild.checkpoint.transfer import is_name, raise_if_unremovable
from detbuild.context.wildmatch import compile_path
from detbuild.controller.book import JournaledState
from detbuild.controller.clock import SystemClock
from detbuild.controller.heed import apply_requests
from detbuild.controller.keeper import CheckpointManager
from detbuild.controller.lease import lease_at_the_end
from detbuild.errors import ConfigError, EngineError
from detbuild.store import journal
from detbuild.store.home import Home
from detbuild.store.registry import registered
from detbuild.store.state import fold, load, run_records
from detbuild.store.states import StopVerb
from detbuild.store.storage import storage_of
from detbuild.store.submitted import config_of
from determined._checkpoints import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from detbuild.checkpoint.select import Policy
    from detbuild.store.folder import ExperimentFolder
    from determined._records import Checkpoint

_LOOK: Final = 0.05  # seconds
_TRIES: Final = 3  # while a person waits: three seconds, besides what the network takes


def end_local(journaled: JournaledState, end: journal.ExperimentFinished) -> None:
    """Let an experiment without a controller end, once its checkpoints are where they belong.

    Ctrl-C ends it at once, and a kill where the bucket does not answer; what is not uploaded by then stays on
    this host, as the state says.

    Args:
        book: Of the experiment; the caller holds its lease.
        end: What is then written down.
    """
    folder = journaled.folder
    manager = CheckpointManager(journaled, config_of(folder), SystemClock())
    home = Home.open(folder.path.parent.parent)
    try:
        while manager.before_end(home, hurry=journaled.state.stop == StopVerb.KILL):
            try:
                manager.step()
                manager.clock.wait(_LOOK)
                apply_requests(journaled)
            except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time)
                manager.give_up()
        journaled.record(end)
        _finish(manager)
    finally:
        manager.close()


def restore_files(journaled: JournaledState, uuids: tuple[str, ...]) -> str:
    """Have the first of them that is whole anywhere on this host; say why that cannot be, or "".

    Args:
        book: Of an experiment without a controller; the caller holds its lease.
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
            manager.clock.wait(_LOOK)
    finally:
        manager.close()
    return ""


def finish_checkpoints(folder: ExperimentFolder) -> None:
    """Finish what is left to do for the checkpoints of an ended experiment, whose lease the caller holds.

    What fails is said in the experiment's state.
    """
    manager = CheckpointManager(JournaledState(folder=folder), config_of(folder), SystemClock(), tries=_TRIES)
    try:
        _finish(manager)
    finally:
        manager.close()


def remove_all(folder: ExperimentFolder) -> None:
    """Remove every checkpoint of an ended experiment, whose lease the caller holds.

    Raises:
        EngineError: Files cannot be removed; done again, it goes on.
    """
    if storage_of(folder).on_host is None:
        return
    with _manager(folder) as manager:
        written = (one.uuid for one in _written(folder))
        manager.delete([uuid for uuid in written if is_name(uuid) and uuid not in manager.stored.deleted])


def policy(home: Home, experiment_id: int) -> Policy:
    """How many checkpoints the experiment was told to keep."""
    folder = home.experiment(experiment_id)
    return policy_of(config_of(folder), folder)


def collect(
    home: Home, experiment_id: int, wanted: Policy | None = None, *, dry_run: bool = False
) -> Collection:
    """Remove the checkpoints that a policy, by default the experiment's own, does not keep.

    Args:
        home: Where it is.
        experiment_id: Of an experiment that has ended.
        wanted: How many are kept.
        dry_run: Only say which.

    Raises:
        ConfigError: It has not ended, or its checkpoints are inside of its containers.
        EngineError: Files cannot be removed. They are no checkpoints any more; the next call removes them.
        LeaseError: Its controller has not finished its last work.
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
    """Remove checkpoints, or only those of their files whose paths match a glob. Return what was found.

    Args:
        home: Where they are.
        uuids: Of any experiments that have ended; they may be cut short where they stay unique.
        globs: As a shell's, `**` stands for any directories.

    Raises:
        ConfigError: There is no such checkpoint, its experiment has not ended, or something needs it.
        EngineError: Files cannot be removed. They are no checkpoints any more; `collect` removes them.
        LeaseError: A controller has not finished its last work.
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
                f"checkpoint {uuid} is not experiment {folder.id}'s to delete: it {stored.foreign[uuid]}"
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
    """What is no plain checkpoint is not changed in part."""
    on_host = storage_of(folder).on_host
    if on_host is not None:
        raise_if_unremovable(on_host, uuid, paths)


def _written(folder: ExperimentFolder) -> Iterator[Checkpoint]:
    for trial in load(folder).trials.values():
        for run in run_records(folder, trial):
            yield from run.checkpoints


@contextmanager
def _alone(folder: ExperimentFolder) -> Iterator[None]:
    """Hold an experiment that has ended."""
    _refuse_going(folder)  # said before the lease is asked for, which a controller of it holds
    with lease_at_the_end(folder.lock_file):
        _refuse_going(folder)
        yield


def _refuse_going(folder: ExperimentFolder) -> None:
    if not fold(folder.header(), folder.journal()).over:
        raise ConfigError(
            f"experiment {folder.id} has not ended, and its controller keeps its checkpoints",
            hint=f"`detbuild wait {folder.id}` waits for that; `detbuild cancel {folder.id}` ends it",
        )


@contextmanager
def _manager(folder: ExperimentFolder) -> Iterator[CheckpointManager]:
    """Make one, and when the block is through wait until it is done."""
    if storage_of(folder).on_host is None:
        raise ConfigError(
            f"the checkpoints of experiment {folder.id} are inside its containers alone",
            hint="mount a directory of the host at checkpoint_storage.container_path with bind_mounts",
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
            hint=f"`detbuild checkpoint gc {folder.id}` tries again",
        )


def _finish(manager: CheckpointManager) -> None:
    while not manager.done:
        manager.step()
        manager.clock.wait(_LOOK)


def _refuse_needed(home: Home, uuids: Iterable[str]) -> None:
    models, started = registered(home), {uuid: number for number, uuid in sources(home)}
    for uuid in uuids:
        if uuid in models:
            raise ConfigError(
                f"checkpoint {uuid} is registered as {', '.join(models[uuid])}",
                hint="take it out of the registry first: see `detbuild model list`",
            )
        if uuid in started:
            raise ConfigError(
                f"checkpoint {uuid} is what experiment {started[uuid]} starts from",
                hint=f"`detbuild delete {started[uuid]}` first",
            )
