"""Deletes experiments: the intent is written first, so that what a crash cut short is finished later.

1. its containers are removed,
2. the intent is written (`deleting` in its folder): from here on it only goes forward,
3. its checkpoints are removed from their storage,
4. its number is retired, and its folder renamed to a hidden name: from here on it is no experiment,
5. the folder is removed.

`finish_deletions` goes on from wherever it stopped. `delete`, `resume` and `list` call it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from detbuild.checkpoint.find import checkpoints_of
from detbuild.checkpoint.owners import announced, release
from detbuild.checkpoint.protected import sources
from detbuild.controller.keeping import remove_all
from detbuild.controller.lease import lease, lease_at_the_end
from detbuild.errors import ConfigError, DetbuildError, EngineError, LeaseError
from detbuild.launch.plan import EXPERIMENT_LABEL, HOME_LABEL
from detbuild.store.deleting import hidden_name, mark_deleting, unfinished_deletions
from detbuild.store.files import alone, file_errors, sweep_temporaries, sync_directory
from detbuild.store.registry import registered
from detbuild.store.state import fold
from determined._untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.engine.protocol import Engine
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home


def delete(home: Home, experiment_id: int, connect: Callable[[], Engine], *, force: bool = False) -> None:
    """Delete an experiment that has ended, with its checkpoints wherever they are stored.

    Args:
        home: Where it is.
        experiment_id: Its number, which is not given out again.
        connect: To the engine that may still have containers of it; not called for a local one.
        force: Also when its checkpoints are registered or were the source of another experiment, and when
            its engine does not answer.

    Raises:
        ConfigError: It has not ended, or something needs it.
        EngineError: Its containers or checkpoints cannot be removed.
        LeaseError: A controller holds it.
    """
    finish_deletions(home)
    folder = home.experiment(experiment_id)
    _refuse_going(folder)  # said before the lease is asked for, which a controller of it holds
    with lease_at_the_end(folder.lock_file):
        _refuse_going(folder)
        if not force:
            _refuse_needed(home, folder)
        _remove_containers(home, folder, connect, force=force)
        mark_deleting(folder)
        _finish(home, folder)


def _refuse_going(folder: ExperimentFolder) -> None:
    state = fold(folder.header(), folder.journal())
    if not state.over:
        raise ConfigError(
            f"experiment {folder.id} has not ended: it is {state.state}",
            hint=f"`detbuild kill {folder.id}`, `detbuild wait {folder.id}`, then delete it",
        )


def finish_deletions(home: Home) -> tuple[DetbuildError, ...]:
    """Finish what was begun and is unowned now; return what went wrong, for another try later.

    What killed processes have left in the home's own directories is removed, too.
    """
    for directory in home.directories:
        sweep_temporaries(directory)
    marked, hidden = unfinished_deletions(home)
    troubles = [_tried(home, folder) for folder in marked] + [_removed(path) for path in hidden]
    return tuple(trouble for trouble in troubles if trouble is not None)


def _tried(home: Home, folder: ExperimentFolder) -> DetbuildError | None:
    try:
        with lease(folder.lock_file, patience=0):
            _finish(home, folder)
    except LeaseError:
        return None  # somebody else is at it
    except DetbuildError as error:
        return error
    return None


def _removed(directory: Path) -> DetbuildError | None:
    try:
        UntrustedDir(directory.parent).remove_tree(directory.name, missing_ok=True)
    except UntrustedError as error:
        return EngineError(f"cannot remove {error.path}: it {error.reason}", hint="remove it by hand")
    return None


def _finish(home: Home, folder: ExperimentFolder) -> None:
    remove_all(folder)
    release(home, announced(folder), folder.id)
    hidden = hidden_name(home, folder)
    with alone(home.experiments / ".retired.lock"):
        home.retire(folder.id)
    with file_errors(folder.path):
        with suppress(FileNotFoundError):  # another process was as far
            UntrustedDir(home.experiments).rename(folder.path.name, hidden.name)
        sync_directory(home.experiments)
    with suppress(UntrustedError):  # `finish_deletions` tries it again, and says why it fails
        UntrustedDir(home.experiments).remove_tree(hidden.name, missing_ok=True)


def _remove_containers(
    home: Home, folder: ExperimentFolder, connect: Callable[[], Engine], *, force: bool
) -> None:
    if folder.header().local:
        return
    try:
        engine = connect()
        _refuse_other_engine(folder, engine)
        for container in engine.find({HOME_LABEL: home.id, EXPERIMENT_LABEL: str(folder.id)}):
            engine.remove(container.id)
    except EngineError:
        if not force:
            raise


def _refuse_other_engine(folder: ExperimentFolder, engine: Engine) -> None:
    header, info = folder.header(), engine.info()
    if header.engine not in {"", info.id}:
        raise EngineError(
            f"experiment {folder.id} ran on Docker Engine {header.engine} at {header.engine_at}, "
            f"and this is {info.id} of {info.name}",
            hint="set DOCKER_HOST to that engine; --force deletes without looking for its containers",
        )


def _refuse_needed(home: Home, folder: ExperimentFolder) -> None:
    """Registered checkpoints and the sources of others are kept."""
    own = {found.checkpoint.uuid for found in checkpoints_of(folder) if not found.checkpoint.foreign}
    for uuid, names in registered(home).items():
        if uuid in own:
            raise ConfigError(
                f"checkpoint {uuid} of experiment {folder.id} is registered as {', '.join(names)}",
                hint="delete that from the registry first, or give --force",
            )
    for other, uuid in sources(home):
        if other != folder.id and uuid in own:
            raise ConfigError(
                f"checkpoint {uuid} of experiment {folder.id} is the source of experiment {other}",
                hint="delete that one first, or give --force",
            )
