"""Finds the checkpoints of experiments: what the runs told of them, and where they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.checkpoint.bucket import address_of
from detbuild.checkpoint.owners import IMPORTED, owner_of
from detbuild.checkpoint.transfer import is_name
from detbuild.errors import ConfigError, EngineError
from detbuild.store.digests import TimeBudget, records_within
from detbuild.store.state import load, run_records
from detbuild.store.storage import checkpoint_storage
from detbuild.store.stored import Stored
from detbuild.store.submitted import config_of
from determined._untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from detbuild.checkpoint.bucket import Address
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.progress import CheckpointState

_GONE = frozenset({"DELETED"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A checkpoint that a run announced."""

    experiment_id: int
    trial_id: int
    checkpoint: CheckpointState
    directory: Path | None  # None: it is not on this host
    cloud: Address | None = field(default=None, repr=False)  # None: it is not in the cloud

    @property
    def state(self) -> str:
        """COMPLETED, PARTIALLY_DELETED, ERROR (found damaged) or DELETED."""
        return self.checkpoint.state if self.directory or self.cloud or not self.owned else "DELETED"

    @property
    def owned(self) -> bool:
        """Whether it belongs to the experiment of which a run has announced it."""
        return not self.checkpoint.foreign

    @property
    def url(self) -> str | None:
        """Where it is in the cloud."""
        return self.cloud.url(self.checkpoint.uuid) if self.cloud else None


def checkpoints_of(folder: ExperimentFolder, allowance: TimeBudget | None = None) -> tuple[Found, ...]:
    """All checkpoints of an experiment, by trial and newest first.

    Raises:
        EngineError: Its files are damaged, or it takes longer than the allowance to read them.
    """
    read = run_records if allowance is None else records_within(allowance)
    config = config_of(folder)
    on_host, cloud = checkpoint_storage(config, folder).on_host, address_of(config.checkpoint_storage)
    return tuple(
        Found(
            experiment_id=folder.id,
            trial_id=trial.id,
            checkpoint=checkpoint,
            directory=_directory(on_host, checkpoint),
            cloud=cloud
            if checkpoint.uploaded and checkpoint.state not in _GONE and not checkpoint.foreign
            else None,
        )
        for trial in load(folder, read).trials.values()
        for checkpoint in trial.progress.checkpoints
    )


def find_checkpoint(home: Home, uuid: str) -> Found:
    """The checkpoint of this uuid, or of the only one that begins with it, in whatever experiment.

    Of experiments that have announced the same uuid it is the one that the checkpoint belongs to.

    Raises:
        ConfigError: There is none, or more than one.
        EngineError: There is none, and it may be of an experiment whose files cannot be read.
    """
    found: list[Found] = []
    unreadable: list[EngineError] = []
    owner = owner_of(home, uuid) if is_name(uuid) else None
    for each in _all(home, unreadable, first=owner) if uuid else ():
        if each.checkpoint.uuid == uuid and each.owned and owner in {None, IMPORTED, each.experiment_id}:
            return each
        found += [each] if each.checkpoint.uuid.startswith(uuid) else []
    found = [each for each in found if each.owned] or found[:1]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.checkpoint.uuid for each in found[:5])
        raise ConfigError(f"{uuid} begins the names of several checkpoints: {names}", hint="give more of it")
    if unreadable:
        raise unreadable[0]
    raise ConfigError(f"there is no checkpoint {uuid!r}", hint="see `detbuild checkpoint list EXPERIMENT`")


def files_of(home: Home, found: Found) -> Mapping[str, int]:
    """Its files and their sizes in bytes, as the run told them, without those that were deleted."""
    folder = home.folder(found.experiment_id)
    stored = Stored.of(entry.fact for entry in folder.journal())
    runs = run_records(folder, load(folder).trials[found.trial_id])
    return next(
        stored.left(one) for run in runs for one in run.checkpoints if one.uuid == found.checkpoint.uuid
    )


def _all(home: Home, unreadable: list[EngineError], *, first: int | None) -> Iterator[Found]:
    """Those of all experiments, of one of them first; what is wrong with some is put into `unreadable`."""
    for number in sorted(home.ids(), key=lambda number: (number != first, -number)):
        folder = home.folder(number)
        if folder.exists:
            try:
                yield from checkpoints_of(folder, TimeBudget())
            except EngineError as error:
                why = f"experiment {number} was not searched: {error}"
                unreadable.append(EngineError(why, hint=error.hint))


def _directory(on_host: Path | None, checkpoint: CheckpointState) -> Path | None:
    if on_host is None or checkpoint.state in _GONE or checkpoint.foreign or not is_name(checkpoint.uuid):
        return None
    there = UntrustedDir(on_host).exists(checkpoint.uuid)  # whatever it is: verifying tells
    return on_host / checkpoint.uuid if there else None
