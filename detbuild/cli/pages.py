"""Text pages of one experiment, one trial or one checkpoint."""

from __future__ import annotations

import time
from itertools import zip_longest
from typing import TYPE_CHECKING

from detbuild.cli.documents import best_trial, best_validation
from detbuild.cli.search_page import metric_chart, search_lines
from detbuild.cli.show import metrics_line, state_line
from detbuild.cli.standing import duration
from detbuild.cli.text import visible
from detbuild.controller.health import blocked_reason
from detbuild.credentials import masked_urls
from detbuild.launch.limits import cpu_limit_text, memory_limit_text, requested_limits
from detbuild.store.state import Goal, State
from detbuild.units import counted, size

_NEWEST = 20  # checkpoints and runs of a trial that a page lists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.checkpoint.find import Found
    from detbuild.store.experiment_dir import ExperimentFolder, Header, RunFolder
    from detbuild.store.state import CheckpointState, ExperimentState, RunState, TrialState
    from determined._records import Validation


def experiment_page(state: ExperimentState, folder: ExperimentFolder, room: int | None = None) -> str:
    """Return the page of an experiment; `room` limits its width in terminal columns."""
    header = state.header
    several = len(state.trials) > 1
    lines = [
        f"experiment {header.id}  {visible(masked_urls(header.name))}",
        f"state      {state_line(state.state, state.why, header.id)}",
    ]
    blocked = blocked_reason(folder, state)
    if blocked:
        lines.append(f"blocked    {visible(blocked)}")
    if header.tag:
        lines.append(f"image      {visible(header.tag)}  {header.image[7:19]}".rstrip())
    lines += _limits(state.header, folder)
    best = best_trial(state)
    if best and best.progress.best:
        which = f"trial {best.id}: " if several else ""
        lines.append(f"best       {which}{_validation(best.progress.best)}")
    lines.append(f"started    {_times(state)}")
    lines.append(f"folder     {visible(str(folder.path))}")
    if several:
        lines += search_lines(state, room)
    for trial in () if several else state.trials.values():
        goal = Goal(header.metric, header.smaller_is_better)
        lines += ["", *trial_lines(trial, folder, shown=state.why), *metric_chart(trial, goal)]
    return "\n".join(lines)


def _limits(header: Header, folder: ExperimentFolder) -> list[str]:
    """Return the limits of each trial; empty without a container or a readable config."""
    limits = requested_limits(folder)
    if header.local or limits is None:
        return []
    memory = memory_limit_text(limits.memory, header.engine_memory)
    root = "; read-only root" if limits.read_only_root else ""
    return [f"limits     memory {memory}; CPU {cpu_limit_text(limits.cpus, header.engine_cpus)}{root}"]


def _times(state: ExperimentState) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.header.created))
    if state.ended is None:
        return begun
    return f"{begun}, ended after {duration(max(0.0, state.ended - state.header.created))}"


def trial_lines(trial: TrialState, folder: ExperimentFolder, *, shown: str = "") -> Iterator[str]:
    """Yield the lines of a trial, without its reason if the page has already `shown` it."""
    progress = trial.progress
    counts = f"batch {progress.steps_completed}  restarts {trial.restarts}"
    yield f"trial {trial.id}  {trial.state.label}  {counts}"
    if trial.why and trial.why not in shown:
        yield f"  reason           {visible(trial.why)}"
    if trial.hparams:
        yield f"  hyperparameters  {metrics_line(trial.hparams)}"
    if progress.training:
        yield f"  training         {metrics_line(progress.training.metrics, leave_out='batches')}"
    for validation in progress.validations[-1:]:
        yield f"  last validation  {_validation(validation)}"
    kept = [one for one in progress.checkpoints if one.state != "DELETED"]
    if len(kept) > _NEWEST:
        older = counted(len(kept) - _NEWEST, "older checkpoint")
        yield f"  checkpoint       {older}: detbuild checkpoint list {folder.id}"
    for checkpoint in kept[-_NEWEST:]:
        yield f"  checkpoint       {checkpoint_line(checkpoint)}"
    if progress.set_aside:
        yield f"  rejected         {counted(progress.set_aside, 'invalid record')} in events.jsonl"
    if len(trial.runs) > _NEWEST:
        earlier = counted(len(trial.runs) - _NEWEST, "earlier run")
        yield f"  run              {earlier}: see --json"
    for run, following in list(zip_longest(trial.runs, trial.runs[1:]))[-_NEWEST:]:
        yield from _run_lines(run, following, folder.run(trial.id, run.run))


def _validation(validation: Validation) -> str:
    return f"{metrics_line(validation.metrics, leave_out='batches')} at batch {validation.steps_completed}"


def checkpoint_line(checkpoint: CheckpointState) -> str:
    damaged = "" if checkpoint.state == "COMPLETED" else f"  {checkpoint.state}"
    return f"{checkpoint.uuid}  batch {checkpoint.steps_completed}  {size(checkpoint.size)}{damaged}"


def _run_lines(run: RunState, following: RunState | None, folder: RunFolder) -> Iterator[str]:
    """Yield the lines of a run; a failure that the next run repeats is printed once, there."""
    end = run.finished
    how = "running" if end is None else end.outcome
    yield f"  run {run.run}  {how}  {visible(str(folder.path))}"
    if end is None:
        return
    if end.message and following and following.finished and following.finished.message == end.message:
        yield f"      same as run {following.run}"
        return
    yield from (f"      {visible(line)}" for line in end.message.splitlines())
    if end.hint:
        yield f"      hint: {visible(end.hint)}"
    yield from (f"      | {visible(line)}" for line in end.tail)


def ending_page(state: ExperimentState, folder: ExperimentFolder) -> str:
    """Return the last lines of `create -f`: the best validation and the output paths."""
    best, checkpoint = best_validation(state), _best_checkpoint(folder)
    lines = []
    if state.why and state.state == State.COMPLETED:  # other ends are printed with their reason
        lines.append(f"  pending          {visible(state.why)}")
    if best:
        lines.append(f"  best validation  {_validation(best)}")
    if checkpoint:
        lines.append(f"  checkpoint       {visible(checkpoint.url or str(checkpoint.directory))}")
    lines.append(f"  metrics, logs    {visible(str(folder.path / 'runs'))}")
    return "\n".join(lines)


def next_commands(state: ExperimentState, folder: ExperimentFolder) -> str:
    checkpoint = _best_checkpoint(folder)
    if not state.over:
        return f"next:\n  detbuild activate {folder.id}"
    lines = [f"detbuild describe {folder.id}", f"detbuild logs {folder.id}"]
    if checkpoint:
        lines.append(f"detbuild checkpoint download {checkpoint.checkpoint.uuid} -o DIR")
    return "next:\n" + "\n".join(f"  {line}" for line in lines)


def _best_checkpoint(folder: ExperimentFolder) -> Found | None:
    """Return the best checkpoint of all trials; if none was validated, the newest of the first."""
    from detbuild.checkpoint.find import best_first, checkpoints_of, goal_of

    found = checkpoints_of(folder)
    intact = (one for one in found if one.state == "COMPLETED")
    return next(iter(best_first(found, goal_of(folder.header()))), None) or next(intact, None)
