"""`det experiment list-trials` and `det trial describe | kill | download | support-bundle`.

`det trial support-bundle`: the files for a bug report in one archive, without secrets.

`det job ...` and `det task list`: Determined's words for experiments and trials that have not ended.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import Session, experiment_argument, pass_session, trial_argument
from detbuild.cli.checkpoints import fetch, output_option, smaller_option
from detbuild.cli.commands import Command
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell
from detbuild.jsontext import json_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from detbuild.cli.documents import Document
    from detbuild.cli.table import Columns, Row
    from detbuild.config.secrets import KnownSecrets
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import TrialState

_PLAIN = ("Dockerfile", "experiment.json", "attributes.json", "journal.jsonl", "controller.log")
_OF_RUN = ("events.jsonl", "stdout.log", "stderr.log")
_LARGEST = 256 << 20  # bytes of one file
# The fields that are exported of each file.
_FIELDS = {
    "experiment.json": (
        "id",
        "name",
        "context_name",
        "created",
        "image",
        "tag",
        "labels",
        "metric",
        "smaller_is_better",
        "version",
        "test_mode",
        "local",
        "network",
    ),
    "attributes.json": ("name", "description", "labels", "archived", "max_slots", "weight", "priority"),
}
_OF_HOST = ("folder", "directory", "url")  # paths on the host and URLs of its storage


@click.command("list-trials", cls=Command)
@experiment_argument
@json_option
@csv_option
@pass_session
def list_(session: Session, /, *, experiment_id: int, as_json: bool, as_csv: bool) -> None:
    """List the trials of an experiment.

    With --json: a list as under "trials" of `detbuild describe --json`.
    """
    from detbuild.cli import documents, listing
    from detbuild.cli.table import tables_of

    state, folder = listing.experiment(session.home, experiment_id)
    rows = documents.trials(state, folder)
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(tables_of([{"trials": rows}])["trials"])
    else:
        columns: Columns = {
            "TRIAL": lambda row: f"{experiment_id}/{row['id']}",
            "STATE": state_cell,
            "BATCHES": "steps_completed",
            "RESTARTS": "restarts",
            "HYPERPARAMETERS": _hparams,
        }
        show_table(rows, columns, empty=f"experiment {experiment_id} has no trials yet")


@click.command(cls=Command)
@trial_argument
@click.option("--metrics", is_flag=True, help="Include all measurements.")
@click.option(
    "--metrics-summary", "summarized", is_flag=True, help="Count, last, min, max, mean of each metric."
)
@json_option
@csv_option
@pass_session
def describe(
    session: Session,
    /,
    *,
    trial: tuple[int, int],
    metrics: bool,
    summarized: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show one trial: runs, metrics, checkpoints.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment. With --json: as
    under "trials" of `detbuild describe --json`, with "measurements" and "metrics_summary" if requested. With
    --csv: its measurements.
    """
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import documents, listing
    from detbuild.cli.pages import trial_lines
    from detbuild.cli.table import metrics_table, summary_table
    from detbuild.store.metrics import measurements, summary

    state, folder = listing.trial(session.home, trial)
    figures = summary(measurements(folder, state)) if summarized else {}
    if as_csv:
        show_csv(listing.measurements(state, folder))
    elif as_json:
        more = {"metrics_summary": figures} if summarized else {}
        own = [one for one in checkpoints_of(folder) if one.trial_id == state.id]
        show_json({**documents.trial(state, folder, own, metrics=metrics), **more})
    else:
        click.echo("\n".join(trial_lines(state, folder)))
        if metrics:
            metrics_table(listing.measurements(state, folder))
        if summarized:
            summary_table(figures)


def _hparams(row: Row) -> str:
    from detbuild.progress import metrics_line

    hparams = row["hparams"]
    return metrics_line(hparams) if isinstance(hparams, dict) else ""


@click.command(cls=Command)
@trial_argument
@pass_session
def kill(session: Session, /, *, trial: tuple[int, int]) -> None:
    """Stop a trial immediately; other trials of its experiment keep running.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    from detbuild.cli.experiments import ask

    ask(session, trial[0], "kill", trial_id=trial[1])


@click.command(cls=Command)
@trial_argument
@output_option
@click.option(
    "--best", is_flag=True, help="Download the best by the searcher's metric instead of the newest."
)
@click.option("--latest", is_flag=True, help="Download the newest (the default).")
@click.option("--uuid", metavar="UUID", help="Download the one with this UUID or unique prefix.")
@click.option("--sort-by", metavar="METRIC", help="With --best: rank by this validation metric.")
@smaller_option
@click.option("-q", "--quiet", is_flag=True, hidden=True, help="Accepted; only the directory is printed.")
@pass_session
def download(
    session: Session,
    /,
    *,
    trial: tuple[int, int],
    target: Path | None,
    best: bool,
    latest: bool,
    uuid: str | None,
    sort_by: str | None,
    smaller_is_better: bool | None,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Download the newest or best checkpoint of a trial, verify it, and print its directory.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    from detbuild.checkpoint.find import best_first, checkpoints_of, goal_of
    from detbuild.cli import listing
    from detbuild.errors import ConfigError

    if best + latest + (uuid is not None) > 1:
        raise click.UsageError("--best, --latest and --uuid are mutually exclusive")
    if sort_by and not best:
        raise click.UsageError("--sort-by requires --best")
    state, folder = listing.trial(session.home, trial)
    found = [f for f in checkpoints_of(folder) if f.trial_id == trial[1] and f.state == "COMPLETED"]
    if best:
        found = best_first(found, goal_of(folder.header(), sort_by, smaller_is_better))
    found = [f for f in found if f.checkpoint.uuid.startswith(uuid or "")]
    if not found or (uuid is not None and len(found) > 1):
        raise ConfigError(
            f"trial {folder.id}/{state.id} has no such checkpoint",
            hint=f"see `det experiment list-checkpoints {folder.id}`",
        )
    fetch(found[0], target)


@click.command("support-bundle", cls=Command)
@trial_argument
@click.option(
    "-o",
    "--output-dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Directory of the archive.",
)
@pass_session
def support_bundle(session: Session, /, *, trial: tuple[int, int], directory: Path) -> None:
    """Pack config, journal, records and output of a trial into a .tar.gz file, and print its name.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment. The bundle has the
    names of environment variables without their values, and no secrets, data or host paths; known secret
    values are masked in logs. Read the logs before sending it.
    """
    from detbuild.cli import listing
    from detbuild.store.files import file_errors

    state, folder = listing.trial(session.home, trial)
    name = f"det-bundle-trial-{trial[0]}-{trial[1]}"
    target = directory / f"{name}.tar.gz"
    with file_errors(target):
        directory.mkdir(parents=True, exist_ok=True)  # allowed: the user names it
        with tarfile.open(target, "w:gz") as archive:  # allowed: the user names it
            for path, data in _files(folder, state, session.environ):
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    click.echo(target)


def _files(
    folder: ExperimentFolder, trial: TrialState, environ: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import documents
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.secrets import known_secrets, masked_for_sharing, secrets_of_host, values_in_script
    from detbuild.store.experiment_dir import config_of
    from determined._contract.untrusted import UntrustedError, UntrustedMissingError
    from determined._version import __version__

    config = config_of(folder).resolved()
    of_host = (*values_in_script(folder.header().startup_hook), *secrets_of_host(environ))
    secrets = known_secrets(config, ExperimentConfig, *of_host)
    own = [one for one in checkpoints_of(folder) if one.trial_id == trial.id]
    yield "version.json", _json({"detbuild": __version__})
    yield "config.json", _json(masked_for_sharing(config))
    yield "trial.json", _json(secrets.hide_in(_without(documents.trial(trial, folder, own), _OF_HOST)))
    runs = [folder.run(trial.id, run.run).path.relative_to(folder.path).as_posix() for run in trial.runs]
    left_out = []
    for name in (*_PLAIN, *(f"{run}/{name}" for run in runs for name in _OF_RUN)):
        try:
            body = folder.files.read(name, _LARGEST)
        except UntrustedMissingError:
            continue
        except UntrustedError as error:
            left_out.append(f"{name} {error.reason}\n")
            continue
        yield name, _packed(name, body, secrets)
    if left_out:
        yield "left-out.txt", secrets.hide("".join(left_out)).encode("utf-8", "backslashreplace")


def _packed(name: str, body: bytes, secrets: KnownSecrets) -> bytes:
    """Return the content of a file without secrets and fields that are not exported."""
    text = body.decode("utf-8", "backslashreplace")
    if name in _FIELDS:
        values = _parsed(text)
        known = values if isinstance(values, dict) else {}
        return _json(secrets.hide_in({key: known[key] for key in _FIELDS[name] if key in known}))
    if name.endswith(".jsonl"):
        return b"".join(_line(line, secrets) for line in text.splitlines() if line)
    return secrets.hide(text).encode()


def _line(text: str, secrets: KnownSecrets) -> bytes:
    """Mask the values of a record; its keys stay, so that it can be parsed."""
    record = _parsed(text)
    if not isinstance(record, dict):
        return secrets.hide(text).encode() + b"\n"
    values = {key: secrets.hide_in(value) for key, value in record.items()}
    return json_text(values, indent=None).encode() + b"\n"


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without(value: object, names: Collection[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


def _json(value: object) -> bytes:
    return json_text(value).encode() + b"\n"


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("--yaml", "as_json", is_flag=True, help="The same as --json: JSON is valid YAML.")
@click.option("--table", is_flag=True, hidden=True, expose_value=False)  # accepted; a table is the default
@pass_session
def jobs(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List experiments that have not ended, oldest first.

    With --json: a list as from `detbuild list --json`.
    """
    from detbuild.cli import listing
    from detbuild.cli.output import no_output
    from detbuild.store.state import ENDED

    found = [row for row in listing.experiments(session.home, no_output) if row["state"] not in ENDED]
    rows = found[::-1]
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {"ID": "id", "NAME": "name", "STATE": state_cell, "REASON": "why"}
        show_table(rows, columns, empty="no experiments are running or waiting")


@click.command(cls=Command)
@experiment_argument
@click.option(
    "-p", "--priority", type=int, metavar="N", help="Priority, 1 to 99; the lowest number runs first."
)
@click.option("-w", "--weight", type=float, metavar="W", help="Fair-share weight.")
@pass_session
def update(session: Session, /, *, experiment_id: int, priority: int | None, weight: float | None) -> None:
    """Set the priority or the weight of an experiment that has not ended."""
    if priority is None and weight is None:
        raise click.UsageError("nothing to update: give --priority or --weight")
    _update(session, experiment_id, {"priority": priority, "weight": weight})


@click.command("update-batch", cls=Command)
@click.argument("changes", metavar="ID.KEY=VALUE...", nargs=-1, required=True)
@pass_session
def update_batch(session: Session, /, *, changes: tuple[str, ...]) -> None:
    """Set priorities or weights of several experiments: `3.priority=10 4.weight=2`."""
    for experiment_id, values in [_change(text) for text in changes]:
        _update(session, experiment_id, values)


def _change(text: str) -> tuple[int, dict[str, int | float | None]]:
    match = re.fullmatch(r"(\d+)\.(?:priority=(\d+)|weight=(\d+(?:\.\d+)?))", text)
    if match is None:
        raise click.UsageError(f"{text!r} is not a change; expected e.g. 3.priority=10 or 3.weight=2.5")
    id_, priority, weight = match.groups()
    return int(id_), {"priority": int(priority)} if priority else {"weight": float(weight)}


def _update(session: Session, experiment_id: int, values: Mapping[str, int | float | None]) -> None:
    from detbuild.store.annotations import change_attributes
    from detbuild.store.home import Home

    given = {name: value for name, value in values.items() if value is not None}
    folder = Home.open(session.home).experiment(experiment_id)
    change_attributes(folder.path, lambda attributes: replace(attributes, **given))  # type: ignore[arg-type]
    click.echo(f"experiment {experiment_id} changed", err=True)


@click.command("list", cls=Command)
@json_option
@csv_option
@pass_session
def tasks(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List trials that have not ended; each is a task.

    With --json: a list of {"task", "experiment_id", "trial_id", "state", "why", "container", "gpu_ids"}.
    """
    rows = list(_tasks(session))
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {"TASK": "task", "STATE": state_cell, "CONTAINER": "container", "REASON": "why"}
        show_table(rows, columns, empty="no trials are running or waiting")


def _tasks(session: Session) -> Iterator[Document]:
    from detbuild.cli.output import no_output
    from detbuild.store.home import Home
    from detbuild.store.state import fold

    home = Home.open(session.home)
    read = home.each(lambda folder: fold(folder.header(), folder.journal()), no_output, oldest_first=True)
    for state in read:
        for trial in state.trials.values() if not state.over else ():
            run = trial.open_run
            if not trial.ended:
                yield {
                    "task": f"{state.header.id}/{trial.id}",
                    "experiment_id": state.header.id,
                    "trial_id": trial.id,
                    "state": trial.state,
                    "why": trial.why,
                    "container": run.container[:12] if run and run.container else None,
                    "gpu_ids": list(run.gpu_ids) if run else [],
                }
