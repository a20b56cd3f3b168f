"""The checkpoint that a new experiment starts from, put where its runs look for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint.download import copy_whole, download, raise_if_unusable
from detbuild.checkpoint.find import checkpoints_of, find_checkpoint
from detbuild.checkpoint.transfer import damage_errors
from detbuild.config.storage import SharedFs
from detbuild.errors import ConfigError, EngineError
from detbuild.store.storage import checkpoint_storage
from determined._checkpoints import opened
from determined._untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.checkpoint.find import Found
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home


def sources_of(config: ExperimentConfig, home: Home) -> tuple[Found | Path, ...]:
    """What `searcher.source_trial_id` or `source_checkpoint_uuid` means: the first of these that is whole.

    Empty when there is none, or nothing to do about it.

    Raises:
        ConfigError: There is no such trial or checkpoint.
        EngineError: What has its name in the shared directory is not a directory.
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
            f"searcher.source_checkpoint_uuid: {uuid} is no whole name of a checkpoint",
            hint=f"write {found.checkpoint.uuid}",
        )
    return (found,)


def stage_source_checkpoint(
    sources: Sequence[Found | Path], config: ExperimentConfig, folder: ExperimentFolder
) -> ExperimentConfig:
    """Copy it to the experiment's other checkpoints: what becomes of the old experiment does not matter then.

    Returns:
        The config, which names the checkpoint that was brought.

    Raises:
        EngineError: None is whole, or it cannot be copied.
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
    """`3/2` is trial 2 of experiment 3; `3` is the first trial of experiment 3."""
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
    """The newest may be damaged; an older one is better than none, and none is an error."""
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
        f"none of the checkpoints to start from is whole:{listing}",
        hint="restore one of them from a copy, or leave the source out of the config",
    )


def _copy(source: Found | Path, target: Path) -> None:
    if isinstance(source, Path):
        copy_whole(source, target)
    else:
        download(source, target)
