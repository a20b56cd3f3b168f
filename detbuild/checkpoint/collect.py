"""Plans the garbage collection of an experiment that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.checkpoint.protected import parents, pending_sources, sources
from detbuild.checkpoint.select import Candidate, Policy, select_kept
from detbuild.checkpoint.transfer import is_name
from detbuild.store.annotations import read_attributes, with_attributes
from detbuild.store.registry import registered
from detbuild.store.state import Goal, load, run_records

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.state import CheckpointState


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
    goal = Goal(header.metric, header.smaller_is_better)
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
    stays = select_kept(candidates, policy, smaller_is_better=header.smaller_is_better, protected=protected)
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
