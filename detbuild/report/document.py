"""Builds the document of a report from experiments: plain values, secrets hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from detbuild.credentials import MASK
from determined._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.api.report import Log, Source, Table
    from detbuild.store.state import CheckpointState, Goal, RunState, TrialState

_DIGITS: Final = 7  # significant ones of a metric


def document(sources: Sequence[Source], *, made: float) -> dict[str, object]:
    """Return the document of a page.

    Args:
        sources: the experiments to show.
        made: now, in seconds since the epoch; the end time of running trials.
    """
    trials: list[object] = []
    tables: list[object] = []
    for number, source in enumerate(sources):
        for trial in source.state.trials.values():
            tables += [_table(table, len(trials)) for table in source.tables.get(trial.id, ())]
            trials.append(source.secrets.hide_in(_trial(source, trial, number, made)))
    return {
        "version": __version__,
        "made": made,
        "experiments": [source.secrets.hide_in(_experiment(source)) for source in sources],
        "trials": trials,
        "tables": tables,
        "notes": list(_notes(sources)),
    }


def _experiment(source: Source) -> dict[str, object]:
    state, header = source.state, source.state.header
    return {
        "id": header.id,
        "name": header.name,
        "state": state.state,
        "why": state.why,
        "created": header.created,
        "image": header.image,
        "tag": header.tag,
        "host": header.host,
        "local": header.local,
        "metric": header.metric,
        "smaller_is_better": header.smaller_is_better,
        "log_hparams": list(_log_hparams(source.config.get("hyperparameters"), "")),
        "config": _plain(source.config),
        "dockerfile": source.dockerfile,
    }


def _trial(source: Source, trial: TrialState, experiment: int, made: float) -> dict[str, object]:
    header, progress = source.state.header, trial.progress
    goal = header.goal
    return {
        "id": trial.id,
        "experiment": experiment,
        "state": trial.state,
        "why": trial.why,
        "seed": trial.seed,
        "hparams": _plain(trial.hparams),
        "epochs_per_batch": _epochs_per_batch(source.config, trial.hparams),
        "best": _finite(goal.value(progress.best)) if progress.best else None,
        "latest": _finite(goal.value(progress.validations[-1])) if progress.validations else None,
        "steps": progress.steps_completed,
        "restarts": trial.restarts,
        "duration": sum(_seconds(run, made) or 0.0 for run in trial.runs) if trial.runs else None,
        "gpus": list(trial.runs[-1].gpu_ids) if trial.runs else [],
        "checkpoints": [_checkpoint(one, goal) for one in progress.checkpoints],
        "runs": [_run(run, made) for run in trial.runs],
        "log": _log(source.logs.get(trial.id)),
    }


def _log(log: Log | None) -> dict[str, object]:
    return {"text": log.text if log else "", "cut": log.cut if log else False}


def _checkpoint(checkpoint: CheckpointState, goal: Goal) -> dict[str, object]:
    return {
        "uuid": checkpoint.uuid,
        "steps": checkpoint.steps_completed,
        "size": checkpoint.size,
        "state": checkpoint.state,
        "metric": _finite(goal.value(checkpoint.validation)) if checkpoint.validation else None,
    }


def _run(run: RunState, made: float) -> dict[str, object]:
    end = run.finished
    return {
        "run": run.run,
        "outcome": end.outcome if end else "running",
        "exit_code": end.exit_code if end else None,
        "seconds": _seconds(run, made),
        "message": "\n".join((end.message, *end.tail)).strip() if end and end.outcome != "completed" else "",
        "hint": end.hint if end else "",
    }


def _seconds(run: RunState, made: float) -> float | None:
    if run.started is None:
        return None
    return round(max(0.0, (made if run.ended is None else run.ended) - run.started), 1)


def _table(table: Table, trial: int) -> dict[str, object]:
    return {
        "trial": trial,
        "group": table.group,
        "steps": list(table.steps),
        "times": [round(seconds, 2) for seconds in table.times],
        "metrics": {name: _rounded(values) for name, values in table.metrics.items()},
    }


def _notes(sources: Sequence[Source]) -> Iterator[str]:
    metrics = list(dict.fromkeys(source.state.header.metric for source in sources))
    if len(metrics) > 1:
        others = ", ".join(metrics[1:])
        yield f"only trials with the searcher metric {metrics[0]} are ranked; others have {others}"
    yield from _of_curves(
        [table for source in sources for found in source.tables.values() for table in found]
    )
    yield f"{MASK} hides secrets, values of variables, and data and paths of the host"


def _of_curves(tables: Sequence[Table]) -> Iterator[str]:
    thinned = [table for table in tables if table.records > len(table.steps)]
    points, records = sum(len(t.steps) for t in thinned), sum(t.records for t in thinned)
    if thinned:
        yield (
            f"{len(thinned)} of {len(tables)} curves are downsampled: {points} points for {records} records, "
            "with the lowest and highest value of each interval"
        )
    not_finite = sum(_count_not_finite(values) for table in tables for values in table.metrics.values())
    if not_finite:
        yield f"{not_finite} values are NaN or infinite and shown as gaps in the curves"


def _count_not_finite(values: Sequence[float | None]) -> int:
    return sum(value is not None and not math.isfinite(value) for value in values)


def _epochs_per_batch(config: Mapping[str, object], hparams: Mapping[str, object]) -> float | None:
    records, batch = config.get("records_per_epoch"), hparams.get("global_batch_size")
    if isinstance(records, int) and records > 0 and isinstance(batch, int):
        return batch / records
    return None


def _log_hparams(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        if node.get("type") == "log":
            yield prefix
        for key, value in node.items():
            yield from _log_hparams(value, f"{prefix}.{key}" if prefix else str(key))


def flat(hparams: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in hparams.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> object:
    """Convert to JSON values; others become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    """Round to the digits that a page shows; NaN and infinities become None.

    One format for all values: this takes half of the time of writing a page.
    """
    given = [value if value is not None and math.isfinite(value) else None for value in values]
    finite = tuple([value for value in given if value is not None])
    rounded = map(float, (f"%.{_DIGITS}g " * len(finite) % finite).split())
    return (
        list(rounded)
        if len(finite) == len(given)
        else [None if one is None else next(rounded) for one in given]
    )
