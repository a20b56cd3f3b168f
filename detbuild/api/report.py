"""What a report shows of experiments: states, curves, logs and configs, with the secrets to hide in them.

Missing and damaged files of an experiment are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.codec import as_map
from detbuild.config import secrets
from detbuild.config.experiment import ExperimentConfig
from detbuild.errors import EngineError
from detbuild.store.files import read_document
from detbuild.store.logs import last_text
from detbuild.store.metrics import Row, Table, tables
from detbuild.store.state import fold, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.api.experiment import Experiment
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.records import RunRecords
    from detbuild.store.state import ExperimentState, TrialState

__all__ = ["Log", "Row", "Source", "Table", "read_all", "read_experiments"]
_MAX_POINTS: Final = 1_000  # in one curve
_ALL_POINTS: Final = 2_000_000  # on a page, before curves are downsampled further
_FEWEST_POINTS: Final = 50
_LOG: Final = 1 << 20  # bytes of one trial's log
_ALL_LOGS: Final = 8 << 20  # and on a page
_TEXT: Final = 1 << 20  # bytes of a config or a Dockerfile


@dataclass(frozen=True, slots=True)
class Log:
    text: str
    cut: bool  # only the end is included


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The data of one experiment."""

    state: ExperimentState
    tables: Mapping[int, tuple[Table, ...]]  # by trial
    logs: Mapping[int, Log]
    config: Mapping[str, object]  # resolved, without secrets
    dockerfile: str
    secrets: secrets.KnownSecrets  # hidden everywhere


def read_experiments(experiments: Sequence[Experiment], *, points: int) -> tuple[Source, ...]:
    """Read experiments for a page; values of the caller's environment that look secret are hidden."""
    environ = experiments[0].connection.environ if experiments else {}
    return read_all(
        [one.folder for one in experiments], points=points, secrets=secrets.secrets_of_host(environ)
    )


def read_all(
    folders: Sequence[ExperimentFolder], *, points: int = _MAX_POINTS, secrets: tuple[str, ...] = ()
) -> tuple[Source, ...]:
    """Read the experiments of a page; many trials mean fewer points and log lines each."""
    trials = max(1, sum(len(fold(folder.header(), folder.journal()).trials) for folder in folders))
    points = min(points, max(_FEWEST_POINTS, _ALL_POINTS // (2 * trials)))
    log = min(_LOG, _ALL_LOGS // trials)
    return tuple(_read(folder, points, log, secrets) for folder in folders)


def _read(folder: ExperimentFolder, points: int, log: int, more: tuple[str, ...]) -> Source:
    config = _config(folder)
    curves: dict[int, tuple[Table, ...]] = {}

    def read(experiment: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
        records, curves[trial.id] = tables(experiment, trial, limit=points)
        return records

    state = load(folder, read)
    return Source(
        state=state,
        tables=curves,
        logs={number: _last_log(folder, trial, log) for number, trial in state.trials.items()},
        config=secrets.masked_for_sharing(config),
        dockerfile=_text(folder, "Dockerfile"),
        secrets=secrets.known_secrets(
            config, ExperimentConfig, *secrets.values_in_script(folder.header().startup_hook), *more
        ),
    )


def _config(folder: ExperimentFolder) -> dict[str, object]:
    try:
        return read_document(folder.config_file, as_map)
    except (OSError, EngineError):
        return {}


def _text(folder: ExperimentFolder, name: str) -> str:
    try:
        with folder.files.open(name) as file:
            return file.read(_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""


def _last_log(folder: ExperimentFolder, trial: TrialState, limit: int) -> Log:
    if not trial.runs:
        return Log("", cut=False)
    run = folder.run(trial.id, trial.runs[-1].run)
    parts = [last_text(run, stream, limit // 2) for stream in ("stdout", "stderr")]
    text = "\n".join(part for part, _ in parts if part)
    return Log(text, cut=len(trial.runs) > 1 or any(cut for _, cut in parts))
