"""Plans the garbage collection of an experiment that has ended.

Determined's retention policy decides, as a pure function. Checkpoints that another experiment or a trial
starts from are kept, and so are registered ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import is_name
from detbuild.store.annotations import read_attributes, with_attributes
from detbuild.store.files import LARGEST_DOCUMENT
from detbuild.store.registry import registered
from detbuild.store.state import load, run_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder, Goal
    from detbuild.store.home import Home
    from detbuild.store.records import RunRecords
    from detbuild.store.state import CheckpointState, ExperimentState

_NO_SOURCE: Final = b'"source_checkpoint_uuid": null'


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """UUIDs of complete checkpoints; damaged and partially deleted ones are in neither list."""

    kept: tuple[str, ...] = ()
    garbage: tuple[str, ...] = ()


def policy_of(config: ExperimentConfig, folder: ExperimentFolder) -> Policy:
    """Return the retention policy of the experiment, with later changes to its attributes."""
    storage = with_attributes(config, read_attributes(folder.path)).checkpoint_storage
    return Policy(
        save_experiment_best=storage.save_experiment_best,
        save_trial_best=storage.save_trial_best,
        save_trial_latest=storage.save_trial_latest,
    )


def plan_collection(home: Home, folder: ExperimentFolder, policy: Policy) -> Collection:
    """Apply the policy to the checkpoints that the runs reported.

    Raises:
        EngineError: The model registry cannot be read.
    """
    state = load(folder)
    header = state.header
    goal = header.goal
    candidates = [
        _candidate(one, trial.id, goal)
        for trial in state.trials.values()
        for one in reversed(trial.progress.checkpoints)
        if one.state == "COMPLETED" and is_name(one.uuid)
    ]
    if not candidates:
        return Collection()
    records = (run_records(folder, trial) for trial in state.trials.values())
    protected = {
        *registered(home),
        *(uuid for _, uuid in sources(home)),
        *parents(records),
        *pending_sources(state),
    }
    stays = select_kept(candidates, policy, goal, protected=protected)
    return Collection(
        kept=tuple(one.uuid for one in candidates if one.uuid in stays),
        garbage=tuple(one.uuid for one in candidates if one.uuid not in stays),
    )


def _candidate(checkpoint: CheckpointState, trial_id: int, goal: Goal) -> Candidate:
    return Candidate(
        uuid=checkpoint.uuid,
        trial_id=trial_id,
        steps_completed=checkpoint.steps_completed,
        metric=goal.value(checkpoint.validation) if checkpoint.validation else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How many checkpoints each of three rules keeps; a checkpoint stays if any rule keeps it."""

    save_experiment_best: int = 0
    save_trial_best: int = 1
    save_trial_latest: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A complete checkpoint of a trial."""

    uuid: str
    trial_id: int
    steps_completed: int
    metric: float | None  # the searcher's metric at the same batch; None is never the best


def select_kept(
    candidates: Iterable[Candidate], policy: Policy, goal: Goal, *, protected: AbstractSet[str]
) -> frozenset[str]:
    """Return the UUIDs of the checkpoints to keep.

    Args:
        candidates: In the order written; of equal metrics the earlier one is better.
        protected: UUIDs that are always kept: registered ones, and those that a trial started from.
    """
    written = tuple(candidates)
    valued = ((one.metric, place, one) for place, one in enumerate(written))
    ranked = [(goal.cost(metric), place, one) for metric, place, one in valued if metric is not None]
    best = [one for _, _, one in sorted(ranked, key=lambda entry: entry[:2])]
    chosen = set(best[: policy.save_experiment_best])
    for own in _by_trial(best):
        chosen.update(own[: policy.save_trial_best])
    for own in _by_trial(written[::-1]):
        newest_first = sorted(own, key=lambda one: -one.steps_completed)  # ties: the last written
        chosen.update(newest_first[: policy.save_trial_latest])
    return frozenset(one.uuid for one in written if one in chosen or one.uuid in protected)


def _by_trial(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    trials: dict[int, list[Candidate]] = {}
    for one in candidates:
        trials.setdefault(one.trial_id, []).append(one)
    yield from trials.values()


def sources(home: Home) -> Iterator[tuple[int, str]]:
    """Yield each experiment of this home that starts from a checkpoint, with its UUID."""
    for number in home.ids():
        uuid = _source(home.folder(number))
        if uuid:
            yield number, uuid


def parents(trials: Iterable[Iterable[RunRecords]]) -> frozenset[str]:
    """Return the checkpoints of other trials that a trial started from.

    Args:
        trials: The runs of each trial.
    """
    return frozenset(uuid for runs in trials for uuid in _foreign(tuple(runs)))


def pending_sources(state: ExperimentState) -> frozenset[str]:
    """Return the checkpoints that trials without a run will start from."""
    return frozenset(uuid for trial in state.trials.values() if not trial.runs for uuid in trial.source)


def _foreign(runs: tuple[RunRecords, ...]) -> Iterator[str]:
    own = {checkpoint.uuid for run in runs for checkpoint in run.checkpoints}
    return (run.restored.uuid for run in runs if run.restored and run.restored.uuid not in own)


def _source(folder: ExperimentFolder) -> str:
    try:
        body = folder.files.read(folder.config_file.name, LARGEST_DOCUMENT)
        if _NO_SOURCE in body:  # fast path: nearly all of possibly thousands
            return ""
        searcher = json.loads(body).get("searcher") or {}
        return str(searcher.get("source_checkpoint_uuid") or "")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""  # a submission that never finished
