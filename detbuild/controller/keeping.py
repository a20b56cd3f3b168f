"""Deletes and collects the checkpoints of experiments that have ended, with their lease held."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.collect import Collection, garbage, policy_of
from detbuild.checkpoint.find import Found, find_checkpoint
from detbuild.checkpoint.protected import registered, sources
from detbuild.checkpoint.transfer import is_name
from detbuild.context.wildmatch import compile_path
from detbuild.controller.clock import Clock, SystemClock
from detbuild.controller.keeper import Keeper
from detbuild.controller.lease import lease
from detbuild.errors import ConfigError, EngineError, LeaseError
from detbuild.store import journal
from detbuild.store.home import Home
from detbuild.store.state import ExperimentState, advance, fold, run_records
from detbuild.store.storage import storage_of
from detbuild.store.stored import Stored
from detbuild.store.submitted import config_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.checkpoint.select import Policy
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder

_LOOK: Final = 0.05  # seconds


@dataclass(slots=True)
class Book:
    """What a keeper works on without a controller."""

    folder: ExperimentFolder
    config: ExperimentConfig
    clock: Clock
    state: ExperimentState
    stored: Stored

    @classmethod
    def open(cls, folder: ExperimentFolder) -> Book:
        entries = folder.journal()
        state, stored = fold(folder.header(), entries), Stored.of(entry.fact for entry in entries)
        return cls(folder, config_of(folder), SystemClock(), state, stored)

    def record(self, fact: journal.Fact) -> None:
        self.state = advance(self.state, self.folder.record(fact))
        self.stored.add(fact)


def end_local(folder: ExperimentFolder, end: journal.ExperimentFinished) -> None:
    """End an experiment that has no controller, once its checkpoints are where they belong."""
    book = Book.open(folder)
    keeper, home = Keeper(book), Home.open(folder.path.parent.parent)
    try:
        while keeper.before_end(home):
            keeper.step()
            book.clock.wait(_LOOK)
        book.record(end)
        _finish(keeper, book)
    finally:
        keeper.close()


def tidy(folder: ExperimentFolder) -> None:
    """Finish what is left to do for the checkpoints of an ended experiment, whose lease the caller holds."""
    with _keeper(Book.open(folder)):
        pass


def remove_all(folder: ExperimentFolder) -> None:
    """Remove every checkpoint of an ended experiment, whose lease the caller holds.

    Raises:
        EngineError: Files cannot be removed; done again, it goes on.
    """
    if storage_of(folder).on_host is None:
        return
    book = Book.open(folder)
    with _keeper(book) as keeper:
        records = (run_records(folder, trial) for trial in book.state.trials.values())
        written = (one.uuid for runs in records for run in runs for one in run.checkpoints)
        keeper.delete([uuid for uuid in written if is_name(uuid) and uuid not in book.stored.deleted])


def policy(home: Home, experiment_id: int) -> Policy:
    """How many checkpoints the experiment was told to keep."""
    return policy_of(config_of(home.experiment(experiment_id)).checkpoint_storage)


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
    """
    folder = home.experiment(experiment_id)
    with _alone(folder):
        book = Book.open(folder)
        rule = wanted or policy_of(book.config.checkpoint_storage)
        found = garbage(home, folder, book.state, book.stored, rule)
        if not dry_run:
            with _keeper(book) as keeper:
                keeper.delete(found.garbage)
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
    """
    found = {(one := find_checkpoint(home, uuid)).checkpoint.uuid: one for uuid in uuids}
    _refuse_needed(home, found)
    for number in sorted({one.experiment_id for one in found.values()}):
        own = [uuid for uuid, one in found.items() if one.experiment_id == number]
        folder = home.folder(number)
        with _alone(folder), _keeper(Book.open(folder)) as keeper:
            _delete(keeper, folder, own, globs)
    return tuple(found.values())


def _delete(keeper: Keeper, folder: ExperimentFolder, uuids: Sequence[str], globs: Sequence[str]) -> None:
    book = keeper.desk
    if not globs:
        keeper.delete([uuid for uuid in uuids if uuid not in book.stored.deleted])
        return
    compiled = [one for glob in globs if (one := compile_path(glob.encode()))]
    for uuid, files in _files(folder, book.state, book.stored, uuids).items():
        paths = tuple(path for path in files if any(one.matches(path.encode()) for one in compiled))
        if len(paths) == len(files):
            keeper.delete([uuid])
        elif paths:
            book.record(journal.FilesDeleted(uuid=uuid, paths=paths))


def _files(
    folder: ExperimentFolder, state: ExperimentState, stored: Stored, uuids: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """The files that are left of these checkpoints."""
    return {
        checkpoint.uuid: tuple(stored.left(checkpoint))
        for trial in state.trials.values()
        for run in run_records(folder, trial)
        for checkpoint in run.checkpoints
        if checkpoint.uuid in uuids and checkpoint.uuid not in stored.deleted and is_name(checkpoint.uuid)
    }


@contextmanager
def _alone(folder: ExperimentFolder) -> Iterator[None]:
    """Hold an experiment that has ended."""
    running = ConfigError(
        f"experiment {folder.id} has not ended, and its controller keeps its checkpoints",
        mend=f"`detbuild wait {folder.id}` waits for that; `detbuild cancel {folder.id}` ends it",
    )
    if not fold(folder.header(), folder.journal()).over:
        raise running
    try:
        with lease(folder.lock_file):
            yield
    except LeaseError:
        raise running from None


@contextmanager
def _keeper(book: Book) -> Iterator[Keeper]:
    """Make one, and when the block is through wait until it is done."""
    if storage_of(book.folder).on_host is None:
        raise ConfigError(
            f"the checkpoints of experiment {book.folder.id} are inside its containers alone",
            mend="mount a directory of the host at checkpoint_storage.container_path with bind_mounts",
        )
    keeper = Keeper(book)
    try:
        yield keeper
        _finish(keeper, book)
    finally:
        keeper.close()
    if book.stored.left_over or book.stored.partly_left_over:
        raise EngineError(
            f"deleted checkpoints could not be removed: {book.state.trouble}",
            mend=f"`detbuild checkpoint gc {book.folder.id}` tries again",
        )


def _finish(keeper: Keeper, book: Book) -> None:
    while not keeper.done:
        keeper.step()
        book.clock.wait(_LOOK)


def _refuse_needed(home: Home, uuids: Iterable[str]) -> None:
    models, started = registered(home), sources(home)
    for uuid in uuids:
        if uuid in models:
            raise ConfigError(
                f"checkpoint {uuid} is registered as a version of a model",
                mend="take it out of the registry first: `detbuild model list`",
            )
        if uuid in started:
            raise ConfigError(
                f"checkpoint {uuid} is what another experiment starts from",
                mend="delete that experiment first",
            )
