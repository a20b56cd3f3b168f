"""Finds the checkpoints of experiments, on this host and in the cloud, and ranks them by a metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.checkpoint.bucket import bucket_of
from detbuild.checkpoint.owners import IMPORTED, owner_of
from detbuild.checkpoint.transfer import is_name
from detbuild.errors import ConfigError, EngineError
from detbuild.store.cache import TimeBudget, records_within
from detbuild.store.experiment_dir import Goal, checkpoint_storage, config_of
from detbuild.store.state import Stored, load, run_records
from determined._contract.untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from detbuild.config.storage import StorageConfig
    from detbuild.store.experiment_dir import ExperimentFolder, Header
    from detbuild.store.home import Home
    from detbuild.store.state import CheckpointState

_GONE = frozenset({"DELETED"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A checkpoint that a run reported."""

    experiment_id: int
    trial_id: int
    checkpoint: CheckpointState
    directory: Path | None  # None: not on this host
    cloud: StorageConfig | None = field(default=None, repr=False)  # None: not in the cloud

    @property
    def state(self) -> str:
        """COMPLETED, PARTIALLY_DELETED, ERROR (found damaged) or DELETED."""
        return self.checkpoint.state if self.directory or self.cloud or not self.owned else "DELETED"

    @property
    def owned(self) -> bool:
        """Whether it belongs to the experiment whose run reported it."""
        return not self.checkpoint.foreign

    @property
    def url(self) -> str | None:
        """Its URL in the cloud."""
        return f"{self.cloud.bucket_url}/{self.checkpoint.uuid}" if self.cloud else None


def checkpoints_of(folder: ExperimentFolder, allowance: TimeBudget | None = None) -> tuple[Found, ...]:
    """List all checkpoints of an experiment, by trial and newest first.

    Raises:
        EngineError: Its files are damaged, or reading them exceeds the time budget.
    """
    read = run_records if allowance is None else records_within(allowance)
    config = config_of(folder)
    on_host, cloud = checkpoint_storage(config, folder).on_host, bucket_of(config.checkpoint_storage)
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
    """Find a checkpoint of any experiment by its UUID or a unique prefix of it.

    If several experiments reported the same UUID, the one that owns the checkpoint is used.

    Raises:
        ConfigError: None or several match.
        EngineError: None match, and some experiments could not be searched.
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
        raise ConfigError(f"{uuid} is ambiguous; it matches {names}", hint="use more characters of the UUID")
    if unreadable:
        raise unreadable[0]
    raise ConfigError(f"there is no checkpoint {uuid!r}", hint="see `detbuild checkpoint list EXPERIMENT`")


def files_of(home: Home, found: Found) -> Mapping[str, int]:
    """Return the files of a checkpoint and their sizes in bytes, without deleted ones."""
    folder = home.folder(found.experiment_id)
    stored = Stored.of(entry.fact for entry in folder.journal())
    runs = run_records(folder, load(folder).trials[found.trial_id])
    return next(
        stored.remaining(one) for run in runs for one in run.checkpoints if one.uuid == found.checkpoint.uuid
    )


def _all(home: Home, unreadable: list[EngineError], *, first: int | None) -> Iterator[Found]:
    """Yield the checkpoints of all experiments, `first` before the others; collect errors in `unreadable`."""
    for number in sorted(home.ids(), key=lambda number: (number != first, -number)):
        folder = home.folder(number)
        if folder.exists:
            try:
                yield from checkpoints_of(folder, TimeBudget())
            except (ConfigError, EngineError) as error:
                if not folder.exists:
                    continue  # deleted meanwhile
                if isinstance(error, ConfigError):
                    raise
                why = f"experiment {number} was not searched: {error}"
                unreadable.append(EngineError(why, hint=error.hint))


def _directory(on_host: Path | None, checkpoint: CheckpointState) -> Path | None:
    if on_host is None or checkpoint.state in _GONE or checkpoint.foreign or not is_name(checkpoint.uuid):
        return None
    there = UntrustedDir(on_host).exists(checkpoint.uuid)  # of any kind: `verify` checks it
    return on_host / checkpoint.uuid if there else None


def goal_of(header: Header, metric: str | None = None, smaller_is_better: bool | None = None) -> Goal:  # noqa: FBT001  (None: the searcher's)
    """Return the searcher's goal, or that of another metric."""
    smaller = header.smaller_is_better if smaller_is_better is None or metric is None else smaller_is_better
    return Goal(metric or header.metric, smaller)


def best_first(found: Iterable[Found], goal: Goal) -> list[Found]:
    """Sort the complete checkpoints that have the metric, best first; ties in the order given."""
    valued = [
        (goal.cost(value), one)
        for one in found
        if one.state == "COMPLETED" and one.checkpoint.validation is not None
        if (value := goal.value(one.checkpoint.validation)) is not None
    ]
    return [one for _, one in sorted(valued, key=lambda pair: pair[0])]


def best_of_trials(found: Iterable[Found], goal: Goal) -> list[Found]:
    """Return the best checkpoint of each trial, best first."""
    of_trials: dict[int, Found] = {}
    for one in best_first(found, goal):
        of_trials.setdefault(one.trial_id, one)
    return list(of_trials.values())
