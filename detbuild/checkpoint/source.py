"""Stages the checkpoint that a new experiment starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint.download import copy_whole, download, raise_if_unusable
from detbuild.checkpoint.find import checkpoints_of, find_checkpoint
from detbuild.checkpoint.transfer import damage_errors
from detbuild.config.storage import SharedFs
from detbuild.errors import ConfigError, EngineError
from detbuild.store.experiment_dir import checkpoint_storage
from determined._checkpoints import opened
from determined._untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.checkpoint.find import Found
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home


def sources_of(config: ExperimentConfig, home: Home) -> tuple[Found | Path, ...]:
    """Resolve `searcher.source_trial_id` or `source_checkpoint_uuid` to candidates, best first.

    Empty if the config has no source, or if the run finds it in the shared directory.

    Raises:
        ConfigError: The trial or checkpoint does not exist.
        EngineError: The checkpoint in the shared directory is not a directory.
    """
    searcher = config.searcher
    if searcher.source_trial_id is not None:
        return _of_trial(str(searcher.source_trial_id), home)
    uuid, storage = searcher.source_checkpoint_uuid, config.checkpoint_storage
    if uuid is None:
        return ()
    if isinstance(storage, SharedFs) and UntrustedDir(storage.directory).exists(uuid):
        with damage_errors(uuid), opened(Path(storage.directory, uuid)):
            return ()  # the run reads it there
    if (home.imported / uuid).is_dir():  # allowed: in no mount
        return (home.imported / uuid,)
    found = find_checkpoint(home, uuid)
    if found.checkpoint.uuid != uuid:
        raise ConfigError(
            f"searcher.source_checkpoint_uuid: {uuid} is not a full checkpoint UUID",
            hint=f"use {found.checkpoint.uuid}",
        )
    return (found,)


def stage_source_checkpoint(
    sources: Sequence[Found | Path], config: ExperimentConfig, folder: ExperimentFolder
) -> ExperimentConfig:
    """Copy the source checkpoint into the new experiment, which makes it independent of the old one.

    Returns:
        The config with the UUID of the staged checkpoint.

    Raises:
        EngineError: All candidates are damaged, or the copy failed.
        ConfigError: The experiment's checkpoints are not on this host.
    """
    if not sources:
        return config
    storage = checkpoint_storage(config, folder).on_host
    if storage is None:
        raise ConfigError(
            "searcher.source_checkpoint_uuid: the checkpoints of this experiment stay inside its container",
            hint="mount a directory of the host at checkpoint_storage.container_path with bind_mounts",
        )
    uuid = _bring_first(sources, storage)
    named = {"source_trial_id": None, "source_checkpoint_uuid": uuid}
    return config.model_copy(update={"searcher": config.searcher.model_copy(update=named)})


def _of_trial(reference: str, home: Home) -> tuple[Found, ...]:
    """List the checkpoints of a trial: `3/2` is trial 2 of experiment 3, `3` its first trial."""
    experiment, _, trial = reference.partition("/")
    number = int(trial or 1)
    found = tuple(
        one
        for one in checkpoints_of(home.experiment(int(experiment)))
        if one.trial_id == number and one.state in {"COMPLETED", "ERROR"} and not one.checkpoint.foreign
    )
    if not found:
        raise ConfigError(
            f"searcher.source_trial_id: trial {experiment}/{number} has no checkpoint",
            hint=f"see `detbuild checkpoint list {experiment}`",
        )
    return found


def _bring_first(sources: Sequence[Found | Path], storage: Path) -> str:
    """Stage the first undamaged checkpoint of `sources` and return its UUID."""
    problems = []
    for source in sources:
        uuid = source.name if isinstance(source, Path) else source.checkpoint.uuid
        try:
            if not UntrustedDir(storage).exists(uuid):
                _copy(source, storage / uuid)
            elif not isinstance(source, Path):
                raise_if_unusable(source)
        except EngineError as error:
            problems.append(error)
        else:
            return uuid
    if len(problems) == 1:
        raise problems[0]
    listing = "".join(f"\n  {error}" for error in problems)
    raise EngineError(
        f"all checkpoints to start from are damaged:{listing}",
        hint="restore one of them, or remove the source from the config",
    )


def _copy(source: Found | Path, target: Path) -> None:
    if isinstance(source, Path):
        copy_whole(source, target)
    else:
        download(source, target)
