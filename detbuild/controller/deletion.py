"""Deletes experiments: the intent is journaled first, so a deletion cut short by a crash is finished later.

1. Remove its containers.
2. Write the intent (`deleting` in its folder): from here on there is no way back.
3. Delete its checkpoints from their storage.
4. Retire its number and rename its folder to a hidden name: it is no longer listed.
5. Delete the folder.

`finish_deletions` continues at the step that was cut short. `delete`, `resume` and `list` call it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from detbuild.checkpoint.find import checkpoints_of
from detbuild.checkpoint.owners import announced, release
from detbuild.checkpoint.retention import sources
from detbuild.controller.checkpoints import remove_all
from detbuild.controller.lease import lease, lease_at_the_end
from detbuild.errors import ConfigError, DetbuildError, EngineError, LeaseError
from detbuild.runtime.registry import runtime_of
from detbuild.store.files import alone, file_errors, sweep_temporaries, sync_directory
from detbuild.store.home import hidden_name, mark_deleting, unfinished_deletions
from detbuild.store.registry import registered
from detbuild.store.state import fold
from determined._contract.untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.engine.protocol import Engine
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home


def delete(home: Home, experiment_id: int, connect: Callable[[], Engine], *, force: bool = False) -> None:
    """Delete an experiment that has ended, with its checkpoints in every storage.

    Args:
        home: The detbuild home.
        experiment_id: The experiment; its number is not reused.
        connect: Connects to the engine that may have its containers; not called for a local experiment.
        force: Delete even if its checkpoints are registered or the source of another experiment, or its
            engine does not answer.

    Raises:
        ConfigError: It has not ended, or its checkpoints are in use.
        EngineError: Its containers or checkpoints cannot be deleted.
        LeaseError: A controller holds its lease.
    """
    finish_deletions(home)
    folder = home.experiment(experiment_id)
    _refuse_going(folder)  # checked before the lease, which its controller holds
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
            f"experiment {folder.id} has not ended: it is {state.state.label}",
            hint=f"run `detbuild kill {folder.id}` and `detbuild wait {folder.id}`, then delete it",
        )


def finish_deletions(home: Home) -> tuple[DetbuildError, ...]:
    """Finish deletions that no process works on, and return their errors; the next call retries them.

    Temporary files of killed processes are removed from the home's directories too.
    """
    for directory in home.directories:
        sweep_temporaries(directory)
    marked, hidden = unfinished_deletions(home)
    errors = [_tried(home, folder) for folder in marked] + [_removed(path) for path in hidden]
    return tuple(error for error in errors if error is not None)


def _tried(home: Home, folder: ExperimentFolder) -> DetbuildError | None:
    try:
        with lease(folder.lock_file, patience=0):
            _finish(home, folder)
    except LeaseError:
        return None  # another process deletes it
    except DetbuildError as error:
        return error
    return None


def _removed(directory: Path) -> DetbuildError | None:
    try:
        UntrustedDir(directory.parent).remove_tree(directory.name, missing_ok=True)
    except UntrustedError as error:
        return EngineError(f"cannot remove {error.path}: it {error.reason}", hint="remove it manually")
    return None


def _finish(home: Home, folder: ExperimentFolder) -> None:
    remove_all(folder)
    release(home, announced(folder), folder.id)
    hidden = hidden_name(home, folder)
    with alone(home.experiments / ".retired.lock"):
        home.retire(folder.id)
    with file_errors(folder.path):
        with suppress(FileNotFoundError):  # another process was faster
            UntrustedDir(home.experiments).rename(folder.path.name, hidden.name)
        sync_directory(home.experiments)
    with suppress(UntrustedError):  # `finish_deletions` retries and reports the error
        UntrustedDir(home.experiments).remove_tree(hidden.name, missing_ok=True)


def _remove_containers(
    home: Home, folder: ExperimentFolder, connect: Callable[[], Engine], *, force: bool
) -> None:
    if folder.header().local:
        return
    try:
        engine = connect()
        _refuse_other_engine(folder, engine)
        runtime_of(folder, engine).remove(home.id, folder.id)
    except EngineError:
        if not force:
            raise


def _refuse_other_engine(folder: ExperimentFolder, engine: Engine) -> None:
    header, info = folder.header(), engine.info()
    if header.engine not in {"", info.id}:
        raise EngineError(
            f"experiment {folder.id} ran on Docker Engine {header.engine} at {header.engine_at}, "
            f"but this is {info.id} of {info.name}",
            hint="set DOCKER_HOST to that engine; --force deletes without removing its containers",
        )


def _refuse_needed(home: Home, folder: ExperimentFolder) -> None:
    """Raise if its checkpoints are registered or the source of another experiment."""
    own = {found.checkpoint.uuid for found in checkpoints_of(folder) if not found.checkpoint.foreign}
    for uuid, names in registered(home).items():
        if uuid in own:
            raise ConfigError(
                f"checkpoint {uuid} of experiment {folder.id} is registered as {', '.join(names)}",
                hint="delete it from the registry first, or use --force",
            )
    for other, uuid in sources(home):
        if other != folder.id and uuid in own:
            raise ConfigError(
                f"checkpoint {uuid} of experiment {folder.id} is the source of experiment {other}",
                hint="delete that experiment first, or use --force",
            )
