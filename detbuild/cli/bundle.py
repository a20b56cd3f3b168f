"""`det trial support-bundle`: what a report of a defect needs, in one file and without secrets."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import trial_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.config.masking import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import TrialState

_PLAIN = ("Dockerfile", "experiment.json", "attributes.json", "journal.jsonl", "controller.log")
_OF_RUN = ("events.jsonl", "stdout.log", "stderr.log")
_LARGEST = 256 << 20  # bytes of one file


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
    help="Where the file goes.",
)
@pass_session
def support_bundle(session: Session, /, *, trial: tuple[int, int], directory: Path) -> None:
    """Pack config, journal, records and output of a trial into a .tar.gz file, and print its name.

    TRIAL is EXPERIMENT/TRIAL, such as 3/1; a lone number is the first trial of that experiment. Secrets of
    the config are hidden; look through the output before you send it to anybody.
    """
    from detbuild.cli import listing
    from detbuild.store.files import file_errors

    state, folder = listing.trial(session.home, trial)
    name = f"det-bundle-trial-{trial[0]}-{trial[1]}"
    target = directory / f"{name}.tar.gz"
    with file_errors(target):
        directory.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz") as archive:
            for path, data in _files(folder, state):
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    click.echo(target)


def _files(folder: ExperimentFolder, trial: TrialState) -> Iterator[tuple[str, bytes]]:
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import documents
    from detbuild.store.submitted import config_of
    from determined._untrusted import UntrustedError, UntrustedMissingError
    from determined._version import __version__

    yield "version.json", _json({"detbuild": __version__})
    yield "config.json", _json(config_of(folder).masked())
    own = [one for one in checkpoints_of(folder) if one.trial_id == trial.id]
    yield "trial.json", _json(documents.trial(trial, folder, own))
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
        yield name, _without_hook(body) if name == "experiment.json" else body
    if left_out:
        yield "left-out.txt", "".join(left_out).encode("utf-8", "backslashreplace")


def _without_hook(body: bytes) -> bytes:
    """A start-up hook is the place where hosts keep what logs them in."""
    header = json.loads(body)
    return _json({**header, "startup_hook": MASK}) if header.get("startup_hook") else body


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, default=str).encode() + b"\n"
