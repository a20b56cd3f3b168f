"""Pages for people about one experiment, one trial, one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.cli.documents import best_validation
from detbuild.cli.search_page import metric_chart, search_lines
from detbuild.cli.show import metrics_line
from detbuild.cli.text import size, visible
from detbuild.store.progress import Goal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.checkpoint.find import Found
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.progress import CheckpointState
    from detbuild.store.state import ExperimentState, RunState, TrialState
    from determined._records import Validation


def experiment_page(state: ExperimentState, folder: ExperimentFolder) -> str:
    header = state.header
    why = f" ({visible(state.why)})" if state.why else ""
    lines = [f"experiment {header.id}  {visible(header.name)}  {state.state}{why}"]
    if header.tag:
        lines.append(f"image      {visible(header.tag)}  {header.image[7:19]}")
    best = best_validation(state)
    if best:
        lines.append(f"best       {_validation(best)}")
    lines.append(f"folder     {visible(str(folder.path))}")
    if len(state.trials) > 1:
        lines += search_lines(state)
    for trial in state.trials.values() if len(state.trials) == 1 else ():
        goal = Goal(header.metric, header.smaller_is_better)
        lines += ["", *trial_lines(trial, folder), *metric_chart(trial, goal)]
    return "\n".join(lines)


def trial_lines(trial: TrialState, folder: ExperimentFolder) -> Iterator[str]:
    progress = trial.progress
    why = f" ({visible(trial.why)})" if trial.why else ""
    yield f"trial {trial.id}  {trial.state}{why}  batch {progress.steps_completed}  restarts {trial.restarts}"
    if trial.hparams:
        yield f"  hyperparameters  {metrics_line(trial.hparams)}"
    if progress.training:
        yield f"  training         {metrics_line(progress.training.metrics, leave_out='batches')}"
    for validation in progress.validations[-1:]:
        yield f"  last validation  {_validation(validation)}"
    for checkpoint in (one for one in progress.checkpoints if one.state != "DELETED"):
        yield f"  checkpoint       {checkpoint_line(checkpoint)}"
    if progress.set_aside:
        yield f"  set aside        {progress.set_aside} pieces of events.jsonl that are no records of the run"
    for run in trial.runs:
        yield from _run_lines(run, trial.id, folder)


def _validation(validation: Validation) -> str:
    return f"{metrics_line(validation.metrics, leave_out='batches')} at batch {validation.steps_completed}"


def checkpoint_line(checkpoint: CheckpointState) -> str:
    damaged = "" if checkpoint.state == "COMPLETED" else f"  {checkpoint.state}"
    return f"{checkpoint.uuid}  batch {checkpoint.steps_completed}  {size(checkpoint.size)}{damaged}"


def _run_lines(run: RunState, trial_id: int, folder: ExperimentFolder) -> Iterator[str]:
    end = run.finished
    how = "running" if end is None else end.outcome
    yield f"  run {run.run}  {how}  {visible(str(folder.run(trial_id, run.run).path))}"
    if end and end.message:
        yield from (f"      {visible(line)}" for line in end.message.splitlines())
    if end and end.mend:
        yield f"      mend: {visible(end.mend)}"
    if end:
        yield from (f"      | {visible(line)}" for line in end.tail)


def ending_page(state: ExperimentState, folder: ExperimentFolder) -> str:
    """What `create -f` says last, after how it ended: how good it is, and where everything lies."""
    best, newest = best_validation(state), _newest(folder)
    lines = []
    if best:
        lines.append(f"  best validation  {_validation(best)}")
    if newest and newest.directory:
        lines.append(f"  checkpoint       {visible(str(newest.directory))}")
    lines.append(f"  metrics, logs    {visible(str(folder.path / 'runs'))}")
    return "\n".join(lines)


def next_commands(folder: ExperimentFolder) -> str:
    newest = _newest(folder)
    lines = [f"detbuild describe {folder.id}", f"detbuild logs {folder.id}"]
    if newest:
        lines.append(f"detbuild checkpoint download {newest.checkpoint.uuid} -o DIR")
    return "next:\n" + "\n".join(f"  {line}" for line in lines)


def _newest(folder: ExperimentFolder) -> Found | None:
    from detbuild.checkpoint.find import checkpoints_of

    return next((found for found in checkpoints_of(folder) if found.state == "COMPLETED"), None)
