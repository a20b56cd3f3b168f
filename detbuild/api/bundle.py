"""The files of a trial for a bug report in one archive, without secrets, data and paths of the host."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.secrets import known_secrets, masked_for_sharing, secrets_of_host, values_in_script
from detbuild.jsontext import json_text
from detbuild.store.experiment_dir import config_of
from detbuild.store.files import file_errors
from determined._contract.untrusted import UntrustedError, UntrustedMissingError
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

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


def write_bundle(
    folder: ExperimentFolder,
    trial: TrialState,
    document: Mapping[str, object],
    directory: Path,
    environ: Mapping[str, str],
) -> Path:
    """Pack config, journal, records and output of a trial into a .tar.gz file, and return its path.

    Args:
        folder: Its experiment.
        trial: The trial.
        document: What `--json` prints of it.
        directory: Directory of the archive, created if needed.
        environ: Secrets among its values are masked.
    """
    name = f"det-bundle-trial-{folder.id}-{trial.id}"
    target = directory / f"{name}.tar.gz"
    with file_errors(target):
        directory.mkdir(parents=True, exist_ok=True)  # allowed: the user names it
        with tarfile.open(target, "w:gz") as archive:  # allowed: the user names it
            for path, data in _files(folder, trial, document, environ):
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return target


def _files(
    folder: ExperimentFolder, trial: TrialState, document: Mapping[str, object], environ: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    config = config_of(folder).resolved()
    of_host = (*values_in_script(folder.header().startup_hook), *secrets_of_host(environ))
    secrets = known_secrets(config, ExperimentConfig, *of_host)
    yield "version.json", _json({"detbuild": __version__})
    yield "config.json", _json(masked_for_sharing(config))
    yield "trial.json", _json(secrets.hide_in(_without(document, _OF_HOST)))
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
