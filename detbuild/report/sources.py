"""Reads the data of a report from experiments; missing and damaged files are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.secrets import known_secrets, masked_for_sharing, values_in_script
from detbuild.errors import EngineError
from detbuild.report.document import Log, Source
from detbuild.store.files import as_map, read_document
from detbuild.store.logs import last_text
from detbuild.store.metrics import tables
from detbuild.store.state import fold, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.metrics import Table
    from detbuild.store.records import RunRecords
    from detbuild.store.state import TrialState

MAX_POINTS: Final = 1_000  # in one curve
_ALL_POINTS: Final = 2_000_000  # on a page, before curves are downsampled further
_FEWEST_POINTS: Final = 50
_LOG: Final = 1 << 20  # bytes of one trial's log
_ALL_LOGS: Final = 8 << 20  # and on a page
_TEXT: Final = 1 << 20  # bytes of a config or a Dockerfile


def read_all(
    folders: Sequence[ExperimentFolder], *, points: int = MAX_POINTS, secrets: tuple[str, ...] = ()
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
        logs={number: _log(folder, trial, log) for number, trial in state.trials.items()},
        config=masked_for_sharing(config),
        dockerfile=_text(folder, "Dockerfile"),
        secrets=known_secrets(
            config, ExperimentConfig, *values_in_script(folder.header().startup_hook), *more
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


def _log(folder: ExperimentFolder, trial: TrialState, limit: int) -> Log:
    if not trial.runs:
        return Log("", cut=False)
    run = folder.run(trial.id, trial.runs[-1].run)
    parts = [last_text(run, stream, limit // 2) for stream in ("stdout", "stderr")]
    text = "\n".join(part for part, _ in parts if part)
    return Log(text, cut=len(trial.runs) > 1 or any(cut for _, cut in parts))
