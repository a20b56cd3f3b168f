"""The page of a search: trials by state, reasons of waiting and failing, the best trials."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from detbuild.cli.charts import bar, curve, sparkline
from detbuild.cli.show import metrics_line
from detbuild.cli.table import aligned, remaining_width
from detbuild.cli.text import number, visible
from detbuild.report.document import flat
from detbuild.store.state import Goal, State
from detbuild.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.store.state import ExperimentState, TrialState

SHOWN: Final = 10  # trials
_REASONS: Final = 3
_NEEDS_NO_REASON: Final = frozenset({State.COMPLETED, State.CANCELED})
_COUNTED: Final = len(" ... and 99 more")


def search_lines(state: ExperimentState, room: int | None) -> Iterator[str]:
    """Yield the lines of a search with several trials; `room` limits the width of its table."""
    trials = list(state.trials.values())
    goal = Goal(state.header.metric, state.header.smaller_is_better)
    counts = Counter(trial.state.label for trial in trials)
    yield f"trials     {', '.join(f'{count} {name}' for name, count in counts.most_common())}"
    yield f"progress   {bar(state.progress)}"
    improved = sparkline(best_so_far(trials, goal))
    if improved:
        yield f"best yet   {improved}"
    yield from _reasons(trials)
    yield ""
    yield from _best(state.header.id, trials, goal, room)


def best_so_far(trials: Sequence[TrialState], goal: Goal) -> list[float]:
    """Return the best value after each validated trial, in the order of trial IDs."""
    found: list[float] = []
    pick = min if goal.smaller_is_better else max
    for trial in trials:
        value = _value(trial, goal)
        if value is not None:
            found.append(pick([value, *found[-1:]]))
    return found


def metric_chart(trial: TrialState, goal: Goal) -> Iterator[str]:
    """Yield a chart of the searcher's metric of a trial over its batches."""
    points = [
        (float(v.steps_completed), value)
        for v in trial.progress.validations
        if (value := goal.value(v)) is not None
    ]
    lines = curve(points)
    if not lines:
        return
    values = [value for _, value in points]
    marks = {0: number(max(values)), len(lines) - 1: number(min(values))}
    yield f"  {visible(goal.metric)} over batches {points[0][0]:.0f} to {points[-1][0]:.0f}"
    for row, line in enumerate(lines):
        yield f"  {marks.get(row, ''):>12} {line}".rstrip("\u2800 ")


def _value(trial: TrialState, goal: Goal) -> float | None:
    return goal.value(trial.progress.best) if trial.progress.best else None


def _reasons(trials: Sequence[TrialState]) -> Iterator[str]:
    """The most frequent reasons for each state, but for those of success."""
    for state in State:
        of_state = (trial for trial in trials if trial.state == state and state not in _NEEDS_NO_REASON)
        reasons = Counter(trial.why.partition("\n")[0] for trial in of_state if trial.why)
        for why, count in reasons.most_common(_REASONS):
            yield f"{state.label:10} {count}: {visible(why)}"


def _best(experiment_id: int, trials: Sequence[TrialState], goal: Goal, room: int | None) -> Iterator[str]:
    sign = 1 if goal.smaller_is_better else -1
    ranked = sorted(
        ((sign * value, trial.id, trial) for trial in trials if (value := _value(trial, goal)) is not None),
        key=lambda one: one[:2],
    )
    shown = [trial for _, _, trial in ranked[:SHOWN]] or list(trials[:SHOWN])
    rows: list[tuple[str, ...]] = [("TRIAL", "STATE", "BEST", "BATCHES", "RESTARTS")]
    rows += [_row(trial, goal) for trial in shown]
    left = None if room is None else remaining_width(rows, room)
    differing = varied(trials)
    hparams = ["HYPERPARAMETERS", *(_hparams(trial, differing, left) for trial in shown)]
    yield from aligned([(*row, cell) for row, cell in zip(rows, hparams, strict=True)], room)
    if len(trials) > len(shown):
        more = len(trials) - len(shown)
        yield f"and {counted(more, 'more trial')}: det experiment list-trials {experiment_id}"


def varied(trials: Sequence[TrialState]) -> frozenset[str]:
    """Return the dotted names of hyperparameters that differ between trials."""
    values: dict[str, object] = {}
    counts: Counter[str] = Counter()
    found: set[str] = set()
    for trial in trials:
        for name, value in flat(trial.hparams):
            counts[name] += 1
            if values.setdefault(name, value) != value:
                found.add(name)
    return frozenset(found | {name for name, count in counts.items() if count < len(trials)})


def _row(trial: TrialState, goal: Goal) -> tuple[str, ...]:
    value = _value(trial, goal)
    return (
        str(trial.id),
        trial.state.label,
        "-" if value is None else number(value),
        str(trial.progress.steps_completed),
        str(trial.restarts),
    )


def _hparams(trial: TrialState, differing: frozenset[str], room: int | None) -> str:
    """Return the differing ones: whole names and values, as many as fit."""
    named = {name: value for name, value in flat(trial.hparams) if name in differing}
    return metrics_line(named) if room is None else metrics_line(named, room=max(room - _COUNTED, 0))
