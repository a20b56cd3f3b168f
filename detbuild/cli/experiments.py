"""`detbuild list`, `describe`, `wait`, `cancel`, `kill` and `resume`.

`detbuild pause`, `activate` and `continue`.

`detbuild archive`, `unarchive`, `set ...` and `label ...`: changes after submission.

Follow an experiment until it ends or Ctrl-C detaches.

`detbuild delete`: permanently delete experiments and their checkpoints.

The exit code of an experiment's end.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

import click

from detbuild.cli.arguments import (
    experiment_argument,
    experiments_argument,
    overrides_option,
    pass_client,
    some_experiments_argument,
    worst,
)
from detbuild.cli.commands import Command
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell
from detbuild.errors import CanceledError, ExperimentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.api.client import Client
    from detbuild.api.experiment import Experiment
    from detbuild.cli.table import Columns, Row
    from detbuild.events import Emit, Event
    from detbuild.store.state import ExperimentState

INTERRUPTED: Final = 130
_EXIT_CODES = {
    "PAUSED": 0,
    "COMPLETED": 0,
    "CANCELED": CanceledError.exit_code,
    "ERROR": ExperimentError.exit_code,
}


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("-a", "--all", "archived", is_flag=True, help="Include archived experiments.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show at most N.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Skip the first N.")
@click.option("--pages", hidden=True, expose_value=False)  # accepted; all are listed
@pass_client
def list_(
    client: Client,
    /,
    *,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
    archived: bool,
    limit: int | None,
    offset: int,
) -> None:
    """List experiments, newest first.

    With --json: a list of {"id", "name", "state", "why", "metric", "best", "steps_completed", "progress",
    "trial_count", "checkpoint_count", "created", "ended", "local", "test_mode", "labels", "archived",
    "folder"}.
    """
    from itertools import islice

    client.finish_deletions()
    found = islice(client.listed(archived=archived), offset, None if limit is None else offset + limit)
    rows = [one.document for one in found]
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    elif quiet:
        for row in rows:
            click.echo(row["id"])
    else:
        columns: Columns = {
            "ID": "id",
            "NAME": "name",
            "STATE": state_cell,
            "DONE": _done,
            "TRIALS": "trial_count",
            "BATCHES": "steps_completed",
            "BEST": _best,
            "CHECKPOINTS": "checkpoint_count",
            "CREATED": _created,
        }
        show_table(
            rows,
            columns,
            empty="no experiments yet; start one with `detbuild create CONFIG DIR`",
            spare=("CHECKPOINTS", "BATCHES"),
        )


@click.command(cls=Command)
@experiments_argument
@click.option("--metrics", is_flag=True, help="Include all measurements.")
@json_option
@csv_option
@click.option(
    "--outdir",
    metavar="DIR",
    type=click.Path(path_type=PurePath),
    help="With --csv: write experiments.csv, trials.csv, checkpoints.csv (and metrics.csv) there.",
)
@pass_client
def describe(
    client: Client,
    /,
    *,
    experiment_ids: tuple[int, ...],
    metrics: bool,
    as_json: bool,
    as_csv: bool,
    outdir: PurePath | None,
) -> None:
    """Show experiments: runs, metrics, checkpoints.

    With --json: the keys of `detbuild list --json`, and "description", "notes", "image", "tag",
    "limits" ("memory" in bytes, "cpus" in cores, null if unlimited; "read_only_root"), "context_dir", "host",
    "version" and "trials", each with its "validations", "checkpoints" and "runs", with
    --metrics "measurements" too; a list of these for several IDs. With --csv: a table of each kind.
    """
    from detbuild.cli.pages import encodable, experiment_page
    from detbuild.cli.table import export, metrics_table
    from detbuild.cli.terminal import terminal_width

    if outdir is not None and not as_csv:
        raise click.UsageError("--outdir requires --csv")
    found = [(one, one.state()) for one in map(client.experiment, experiment_ids)]
    if not as_json and not as_csv:
        for index, (experiment, state) in enumerate(found):
            page = encodable(experiment_page(experiment, state, terminal_width()), sys.stdout.encoding)
            click.echo("\n" * bool(index) + page)
            for trial in state.trials.values() if metrics else ():
                metrics_table(experiment.trial_of(trial).measurement_documents())
        return
    rows = [experiment.described(state, metrics=metrics) for experiment, state in found]
    if as_json:
        show_json(rows[0] if len(rows) == 1 else rows)
    else:
        export(rows, outdir)


def _best(row: Row) -> str:
    from detbuild.escaping import number

    return f"{row['metric']}={number(row['best'])}" if row["best"] is not None else ""


def _done(row: Row) -> str:
    return f"{100 * float(str(row['progress'])):.0f} %"


def _created(row: Row) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created"]))))


@click.command(cls=Command)
@experiments_argument
@click.option(
    "--polling-interval", type=float, hidden=True, expose_value=False
)  # accepted; the end is noticed at once
@pass_client
def wait(client: Client, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Wait until experiments end.

    The exit code is 0 if all completed, 6 if one ended in error, else 7 if one was canceled.
    """
    experiments = client.experiments(experiment_ids)
    for experiment in experiments:
        hint_if_paused(experiment)
    codes = []
    for experiment in experiments:
        state = experiment.wait()
        click.echo(f"experiment {experiment.id} {state.state.label}")
        codes.append(exit_code_of(state))
    return worst(codes)


@click.command(cls=Command)
@experiments_argument
@pass_client
def cancel(client: Client, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Stop experiments after a final checkpoint; `detbuild wait ID` waits for the end."""
    for experiment in client.experiments(experiment_ids):
        show_stop(experiment, experiment.cancel(), "cancel")


@click.command(cls=Command)
@experiments_argument
@pass_client
def kill(client: Client, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Stop experiments immediately; training since their last checkpoints is lost."""
    for experiment in client.experiments(experiment_ids):
        show_stop(experiment, experiment.kill(), "kill")


def show_stop(experiment: Experiment, before: ExperimentState, verb: str) -> None:
    """Print the result of a request to stop an experiment that was in the state `before`."""
    if before.over:
        click.echo(f"experiment {experiment.id} has already ended: {before.state.label}", err=True)
    else:
        click.echo(f"experiment {experiment.id} stopping ({verb}): detbuild wait {experiment.id}", err=True)


@click.command(cls=Command)
@some_experiments_argument
@pass_client
def resume(client: Client, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Restart controllers of experiments that lost theirs, by default of all; print their IDs.

    Running containers are adopted; no work is lost or repeated.
    """
    from detbuild.errors import EngineError

    damaged: list[Event] = []
    client.finish_deletions()
    if experiment_ids:
        resumed = tuple(one.id for one in client.experiments(experiment_ids) if one.resume())
    else:
        resumed = client.resume(damaged.append)
    for id_ in resumed:
        click.echo(id_)
    for event in damaged:
        client.emit(event)
    if not resumed:
        click.echo("nothing to resume: every experiment has ended or has a controller", err=True)
    return EngineError.exit_code if damaged else 0


@click.command(cls=Command)
@experiments_argument
@pass_client
def pause(client: Client, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Pause experiments after a checkpoint, until `detbuild activate ID`.

    A paused experiment uses no container, GPU or process.
    """
    from detbuild.store.state import State

    for experiment in client.experiments(experiment_ids):
        paused = experiment.pause().state == State.PAUSED
        now = State.PAUSED if paused else State.STOPPING_PAUSED
        click.echo(f"experiment {experiment.id} {now.label}: detbuild activate {experiment.id}", err=True)


@click.command(cls=Command)
@experiments_argument
@pass_client
def activate(client: Client, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Unpause experiments; a local one runs here until it ends."""
    codes = []
    for experiment in client.experiments(experiment_ids):
        codes.append(_activate(client, experiment))
        if codes[-1] == INTERRUPTED:
            break
    return worst(codes)


def _activate(client: Client, experiment: Experiment) -> int:
    if experiment.is_idle_here(ended=False):
        return followed(client, experiment, experiment.activate_here)
    experiment.activate()
    click.echo(f"experiment {experiment.id} continues; detbuild logs {experiment.id} -f", err=True)
    return 0


@click.command("continue", cls=Command)
@experiment_argument
@overrides_option
@click.option(
    "--config-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML file with a whole config or the fields to change. --config takes precedence.",
)
@click.option("-f", "--follow", is_flag=True, help="Follow until the experiment ends.")
@pass_client
def continue_(
    client: Client,
    /,
    *,
    experiment_id: int,
    overrides: tuple[str, ...],
    config_file: Path | None,
    follow: bool,
) -> int:
    """Continue an ended or paused experiment; a local one runs here until it ends.

    Trials that did not complete run again from their newest checkpoints. With a new
    `--config searcher.max_length...` all trials of a single, random or grid search train to that length.
    """
    experiment = client.experiment(experiment_id)
    if experiment.is_idle_here(ended=True):
        act = partial(experiment.continue_here, overrides=overrides, file=config_file)
        return followed(client, experiment, act)
    number = experiment.continue_(overrides, config_file)
    if follow:
        return followed(client, experiment, partial(experiment.follow, since=number))
    click.echo(f"experiment {experiment_id} continues; detbuild logs {experiment_id} -f", err=True)
    return 0


@click.command(cls=Command)
@experiments_argument
@pass_client
def archive(client: Client, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Hide experiments from the list; `detbuild list --all` shows them."""
    _archive(client, experiment_ids, archived=True)


@click.command(cls=Command)
@experiments_argument
@pass_client
def unarchive(client: Client, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Show archived experiments in the list again."""
    _archive(client, experiment_ids, archived=False)


def _archive(client: Client, experiment_ids: tuple[int, ...], *, archived: bool) -> None:
    experiments = client.experiments(experiment_ids)
    client.set_archived(experiments, archived=archived)
    for experiment in experiments:
        click.echo(f"experiment {experiment.id} {'archived' if archived else 'unarchived'}", err=True)


@click.command("name", cls=Command)
@experiment_argument
@click.argument("name")
@pass_client
def set_name(client: Client, /, *, experiment_id: int, name: str) -> None:
    """Rename an experiment."""
    change(client, experiment_id, name=name)


@click.command("description", cls=Command)
@experiment_argument
@click.argument("description")
@pass_client
def set_description(client: Client, /, *, experiment_id: int, description: str) -> None:
    """Set the description of an experiment."""
    change(client, experiment_id, description=description)


@click.command("notes", cls=Command)
@experiment_argument
@click.argument("notes")
@pass_client
def set_notes(client: Client, /, *, experiment_id: int, notes: str) -> None:
    """Replace the notes of an experiment."""
    change(client, experiment_id, notes=notes)


@click.command("max-slots", cls=Command)
@experiment_argument
@click.argument("slots", metavar="N|none")
@pass_client
def set_max_slots(client: Client, /, *, experiment_id: int, slots: str) -> None:
    """Limit an experiment to N slots at a time; none removes the limit."""
    if slots != "none" and not (slots.isdecimal() and int(slots) > 0):
        raise click.UsageError(f"expected a number of slots or none, got {slots!r}")
    number = 0 if slots == "none" else int(slots)
    change(client, experiment_id, max_slots=number)


@click.command("weight", cls=Command)
@experiment_argument
@click.argument("weight", type=float)
@pass_client
def set_weight(client: Client, /, *, experiment_id: int, weight: float) -> None:
    """Set the fair-share weight of an experiment."""
    change(client, experiment_id, weight=weight)


@click.command("priority", cls=Command)
@experiment_argument
@click.argument("priority", type=int)
@pass_client
def set_priority(client: Client, /, *, experiment_id: int, priority: int) -> None:
    """Set the priority of an experiment, 1 to 99; the lowest number runs first."""
    change(client, experiment_id, priority=priority)


@click.command("gc-policy", cls=Command)
@experiment_argument
@click.option(
    "--save-experiment-best",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N best of the experiment.",
)
@click.option(
    "--save-trial-best",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N best of each trial.",
)
@click.option(
    "--save-trial-latest",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N newest of each trial.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_client
def set_gc_policy(
    client: Client,
    /,
    *,
    experiment_id: int,
    save_experiment_best: int,
    save_trial_best: int,
    save_trial_latest: int,
    yes: bool,
) -> None:
    """Set the checkpoint retention policy of an experiment.

    Checkpoints of an ended experiment are deleted at once, as by `detbuild checkpoint gc`.
    """
    confirm(f"permanently delete checkpoints of experiment {experiment_id} beyond these numbers", yes=yes)
    deleted = client.experiment(experiment_id).set_retention(
        save_experiment_best=save_experiment_best,
        save_trial_best=save_trial_best,
        save_trial_latest=save_trial_latest,
    )
    click.echo(f"experiment {experiment_id} changed", err=True)
    for uuid in deleted:
        click.echo(uuid)


@click.command("add", cls=Command)
@experiment_argument
@click.argument("label")
@pass_client
def label_add(client: Client, /, *, experiment_id: int, label: str) -> None:
    """Add a label to an experiment."""
    client.experiment(experiment_id).add_label(label)
    click.echo(f"experiment {experiment_id} changed", err=True)


@click.command("remove", cls=Command)
@experiment_argument
@click.argument("label")
@pass_client
def label_remove(client: Client, /, *, experiment_id: int, label: str) -> None:
    """Remove a label from an experiment."""
    client.experiment(experiment_id).remove_label(label)
    click.echo(f"experiment {experiment_id} changed", err=True)


def confirm(what: str, *, yes: bool) -> None:
    """Ask before an action that cannot be undone.

    Args:
        what: The action: a verb and its object.
        yes: Do not ask.

    Raises:
        UsageError: Standard input is not a terminal.
    """
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"cannot ask for confirmation: add --yes to {what}")
    click.confirm(f"{what[:1].upper()}{what[1:]}?", abort=True, err=True)


def change(client: Client, experiment_id: int, **attributes: object) -> None:
    """Change attributes of an experiment, and print that."""
    client.experiment(experiment_id).change(**attributes)
    click.echo(f"experiment {experiment_id} changed", err=True)


def followed(client: Client, experiment: Experiment, act: Callable[[Emit], ExperimentState]) -> int:
    """Show what `act` emits until it returns, and return the exit code; Ctrl-C detaches."""
    from detbuild.cli.output import view

    try:
        with view(client.environ) as emit:
            state = act(emit)
    except KeyboardInterrupt:
        return detached(experiment.id)
    return ended(experiment, state)


def hint_if_paused(experiment: Experiment) -> None:
    """Print how to unpause the experiment if it is paused."""
    if experiment.needs_activation():
        click.echo(f"experiment {experiment.id} paused: detbuild activate {experiment.id}", err=True)


def detached(experiment_id: int) -> int:
    """Print that the experiment keeps running."""
    lines = (
        f"\ndetached; experiment {experiment_id} keeps running",
        f"  attach: detbuild logs {experiment_id} -f",
        f"  cancel: detbuild cancel {experiment_id}",
    )
    click.echo("\n".join(lines), err=True)
    return INTERRUPTED


def ended(experiment: Experiment, state: ExperimentState) -> int:
    """Print the results and the next commands."""
    from detbuild.cli.pages import ending_page, next_commands

    click.echo(ending_page(experiment, state))
    click.echo(next_commands(experiment, state), err=True)
    return exit_code_of(state)


@click.command(cls=Command)
@experiments_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--force", is_flag=True, help="Delete registered and source checkpoints too, and without an engine."
)
@pass_client
def delete(client: Client, /, *, experiment_ids: tuple[int, ...], yes: bool, force: bool) -> None:
    """Delete ended experiments and their checkpoints, wherever they are stored.

    The next delete, resume or list finishes an interrupted deletion. Images are kept: others may use them.
    """
    experiments = client.experiments(experiment_ids)
    noun = "experiment" if len(experiments) == 1 else "experiments"
    names = ", ".join(map(str, experiment_ids))
    confirm(f"permanently delete {noun} {names} and all checkpoints", yes=yes)
    for experiment in experiments:
        experiment.delete(force=force)
        click.echo(f"experiment {experiment.id} deleted", err=True)


def exit_code_of(state: ExperimentState) -> int:
    return _EXIT_CODES[state.state]
