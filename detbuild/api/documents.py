"""Experiments as JSON: plain values under documented, stable names, which `--json` prints.

Times are seconds since the epoch, sizes are bytes, unknown values are null.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from detbuild.store.annotations import read_attributes
from detbuild.store.cache import Summary, summarize
from detbuild.store.home import is_deleting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.checkpoint.find import Found
    from detbuild.store.annotations import Attributes
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.metrics import Measurement
    from detbuild.store.state import ExperimentState, RunState, TrialState
    from determined._contract.records import Validation

__all__ = ["Document", "Listed", "Summary"]
Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class Listed:
    """An experiment in a listing, as it was submitted or changed since."""

    summary: Summary
    folder: str  # path
    archived: bool

    @property
    def document(self) -> Document:
        """One element of `detbuild list --json`."""
        return {
            **asdict(self.summary),
            "metric": self.summary.metric or None,
            "labels": list(self.summary.labels),
            "archived": self.archived,
            "folder": self.folder,
        }


def listed(summary: Summary, folder: ExperimentFolder, changed: Attributes | None = None) -> Listed:
    """Apply what was `changed` since the submission to a summary; it is read from disk if not given."""
    changed = changed or read_attributes(folder.path)
    if is_deleting(folder):
        from detbuild.store.state import State

        summary = replace(summary, state=State.DELETING)
    summary = replace(
        summary,
        name=changed.name or summary.name,
        labels=summary.labels if changed.labels is None else changed.labels,
    )
    return Listed(summary, str(folder.path), changed.archived)


def described(state: ExperimentState, folder: ExperimentFolder, *, metrics: bool = False) -> Document:
    """Return the document of `detbuild describe --json`; `metrics` adds that of `--metrics`."""
    header, changed = state.header, read_attributes(folder.path)
    return {
        **listed(summarize(state), folder, changed).document,
        "description": description(folder, changed),
        "notes": changed.notes or "",
        "image": header.image or None,
        "tag": header.tag or None,
        "limits": _limits(state, folder),
        "context_dir": header.context_dir,
        "host": header.host,
        "version": header.version,
        "trials": trials(state, folder, metrics=metrics),
    }


def _limits(state: ExperimentState, folder: ExperimentFolder) -> Document | None:
    """Return the resource limits of each trial; null for a local run."""
    from detbuild.runtime.limits import RequestedLimits, cpu_limit, memory_limit, requested_limits

    header, limits = state.header, requested_limits(folder) or RequestedLimits()
    if header.local:
        return None
    return {
        "memory": memory_limit(limits.memory, header.engine_memory) or None,
        "cpus": cpu_limit(limits.cpus, header.engine_cpus) or None,
        "read_only_root": limits.read_only_root,
    }


def description(folder: ExperimentFolder, changed: Attributes) -> str:
    """Return the description as it was submitted or changed since."""
    from detbuild.store.experiment_dir import config_of

    return config_of(folder).description or "" if changed.description is None else changed.description


def trials(state: ExperimentState, folder: ExperimentFolder, *, metrics: bool = False) -> list[Document]:
    """Return the document of `det experiment list-trials --json`; reads all checkpoints once."""
    from detbuild.checkpoint.find import checkpoints_of

    found: dict[int, list[Found]] = {}
    for one in checkpoints_of(folder):
        found.setdefault(one.trial_id, []).append(one)
    return [trial(one, folder, found.get(one.id, ()), metrics=metrics) for one in state.trials.values()]


def trial(
    state: TrialState, folder: ExperimentFolder, checkpoints: Iterable[Found], *, metrics: bool = False
) -> Document:
    """Return a trial with its runs, validations and checkpoints; `metrics` adds all measurements."""
    from detbuild.store.metrics import measurements

    progress = state.progress
    measured = (
        [measurement(one, folder.id, state.id) for one in measurements(folder, state)] if metrics else []
    )
    return {
        **({"measurements": measured} if metrics else {}),
        "id": state.id,
        "experiment_id": folder.id,
        "state": state.state,
        "why": state.why,
        "hparams": dict(state.hparams),
        "seed": state.seed,
        "restarts": state.restarts,
        "steps_completed": progress.steps_completed,
        "progress": progress.fraction,
        "stage": progress.stage.value if progress.stage else None,
        "best": _validation(progress.best),
        "training": dict(progress.training.metrics) if progress.training else None,
        "validations": [_validation(one) for one in progress.validations],
        "checkpoints": [checkpoint(one) for one in checkpoints],
        "runs": [_run(one, state.id, folder) for one in state.runs],
    }


def task(experiment_id: int, state: TrialState) -> Document:
    """Return one element of `det task list --json`."""
    run = state.open_run
    return {
        "task": f"{experiment_id}/{state.id}",
        "experiment_id": experiment_id,
        "trial_id": state.id,
        "state": state.state,
        "why": state.why,
        "container": run.container[:12] if run and run.container else None,
        "gpu_ids": list(run.gpu_ids) if run else [],
    }


def checkpoint(found: Found) -> Document:
    """Return one element of `detbuild checkpoint list --json`."""
    state = found.checkpoint
    return {
        "uuid": state.uuid,
        "experiment_id": found.experiment_id,
        "trial_id": found.trial_id,
        "run": state.run,
        "steps_completed": state.steps_completed,
        "state": found.state,
        "size": state.size,
        "files": state.files,
        "metrics": dict(state.validation.metrics) if state.validation else None,
        "directory": str(found.directory) if found.directory else None,
        "url": found.url,
    }


def measurement(found: Measurement, experiment_id: int, trial_id: int) -> Document:
    """Return one element of "measurements" of `detbuild describe --metrics --json`."""
    return {
        "experiment_id": experiment_id,
        "trial_id": trial_id,
        "run": found.run,
        "group": found.group,
        "steps_completed": found.steps_completed,
        "time": found.time,
        "metrics": dict(found.metrics),
    }


def _validation(validation: Validation | None) -> Document | None:
    if validation is None:
        return None
    return {"steps_completed": validation.steps_completed, "metrics": dict(validation.metrics)}


def _run(run: RunState, trial_id: int, folder: ExperimentFolder) -> Document:
    end = run.finished
    return {
        "run": run.run,
        "container": run.container or None,
        "gpu_ids": list(run.gpu_ids),
        "started": run.started or None,
        "outcome": end.outcome if end else None,
        "exit_code": end.exit_code if end else None,
        "signal": end.signal if end else None,
        "message": end.message if end else "",
        "hint": end.hint if end else "",
        "folder": str(folder.run(trial_id, run.run).path),
    }
