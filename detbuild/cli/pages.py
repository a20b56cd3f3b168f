"""Text pages of one experiment, one trial or one checkpoint.

Small charts of characters: a bar, a line of blocks, and a curve of braille dots.

The page of a search: trials by state, reasons of waiting and failing, the best trials.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Final

from detbuild.cli.table import aligned, remaining_width
from detbuild.credentials import masked_urls
from detbuild.escaping import number, visible
from detbuild.progress import metrics_line, state_line
from detbuild.report.document import flat
from detbuild.store.state import State
from detbuild.units import counted, duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from detbuild.api.experiment import Experiment
    from detbuild.store.state import CheckpointState, ExperimentState, Goal, Progress, RunState, TrialState
    from determined._contract.records import Validation

_NEWEST = 20  # checkpoints and runs of a trial that a page lists
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_IN_ASCII: Final = dict(zip(map(ord, _BLOCKS), "_.-=+*#@", strict=True)) | {
    0x2800 + dots: "*" if dots else " " for dots in range(256)
}
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a braille cell
SHOWN: Final = 10  # trials
_REASONS: Final = 3
_NEEDS_NO_REASON: Final = frozenset({State.COMPLETED, State.CANCELED})
_COUNTED: Final = len(" ... and 99 more")


def experiment_page(experiment: Experiment, state: ExperimentState, room: int | None = None) -> str:
    """Return the page of an experiment; `room` limits its width in terminal columns."""
    header = state.header
    several = len(state.trials) > 1
    lines = [
        f"experiment {header.id}  {visible(masked_urls(header.name))}",
        f"state      {state_line(state.state, state.why, header.id)}",
    ]
    blocked = experiment.blocked_reason(state)
    if blocked:
        lines.append(f"blocked    {visible(blocked)}")
    if header.tag:
        lines.append(f"image      {visible(header.tag)}  {header.image[7:19]}".rstrip())
    lines += _limits(experiment)
    best = best_trial(state)
    if best and best.progress.best:
        which = f"trial {best.id}: " if several else ""
        lines.append(f"best       {which}{_validation(best.progress.best)}")
    lines.append(f"started    {_times(state)}")
    lines.append(f"folder     {visible(str(experiment.path))}")
    if several:
        lines += search_lines(state, room)
    for trial in () if several else state.trials.values():
        goal = header.goal
        lines += ["", *trial_lines(experiment, trial, shown=state.why), *metric_chart(trial, goal)]
    return "\n".join(lines)


def _limits(experiment: Experiment) -> list[str]:
    """Return the limits of each trial; empty without a container or a readable config."""
    limits = experiment.limits()
    if limits is None:
        return []
    root = "; read-only root" if limits.read_only_root else ""
    return [f"limits     memory {limits.memory}; CPU {limits.cpus}{root}"]


def best_trial(state: ExperimentState) -> TrialState | None:
    """Return the trial with the best validation by the searcher's metric."""
    validated = {id(trial.progress.best): trial for trial in state.trials.values() if trial.progress.best}
    found = [trial.progress.best for trial in validated.values() if trial.progress.best]
    best = state.header.goal.best(found)
    return validated[id(best)] if best else None


def _times(state: ExperimentState) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.header.created))
    if state.ended is None:
        return begun
    return f"{begun}, ended after {duration(max(0.0, state.ended - state.header.created))}"


def trial_lines(experiment: Experiment, trial: TrialState, *, shown: str = "") -> Iterator[str]:
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
        yield f"  checkpoint       {older}: detbuild checkpoint list {experiment.id}"
    for checkpoint in kept[-_NEWEST:]:
        yield f"  checkpoint       {checkpoint_line(checkpoint)}"
    yield from _unread_records(progress)
    if len(trial.runs) > _NEWEST:
        earlier = counted(len(trial.runs) - _NEWEST, "earlier run")
        yield f"  run              {earlier}: see --json"
    for run, following in list(zip_longest(trial.runs, trial.runs[1:]))[-_NEWEST:]:
        yield from _run_lines(run, following, experiment.trial_of(trial).run_path(run.run))


def _unread_records(progress: Progress) -> Iterator[str]:
    if progress.rejected_records:
        yield f"  rejected         {counted(progress.rejected_records, 'invalid record')} in events.jsonl"
    if progress.unknown_kinds:
        kinds = ", ".join(map(visible, progress.unknown_kinds))
        yield f"  skipped          records of a newer detbuild in events.jsonl: {kinds}"


def _validation(validation: Validation) -> str:
    return f"{metrics_line(validation.metrics, leave_out='batches')} at batch {validation.steps_completed}"


def checkpoint_line(checkpoint: CheckpointState) -> str:
    damaged = "" if checkpoint.state == "COMPLETED" else f"  {checkpoint.state}"
    return f"{checkpoint.uuid}  batch {checkpoint.steps_completed}  {size(checkpoint.size)}{damaged}"


def _run_lines(run: RunState, following: RunState | None, path: Path) -> Iterator[str]:
    """Yield the lines of a run; a failure that the next run repeats is printed once, there."""
    end = run.finished
    how = "running" if end is None else end.outcome
    yield f"  run {run.run}  {how}  {visible(str(path))}"
    if end is None:
        return
    if end.message and following and following.finished and following.finished.message == end.message:
        yield f"      same as run {following.run}"
        return
    yield from (f"      {visible(line)}" for line in end.message.splitlines())
    if end.hint:
        yield f"      hint: {visible(end.hint)}"
    yield from (f"      | {visible(line)}" for line in end.tail)


def ending_page(experiment: Experiment, state: ExperimentState) -> str:
    """Return the last lines of `create -f`: the best validation and the output paths."""
    best, checkpoint = best_trial(state), experiment.best_checkpoint()
    lines = []
    if state.why and state.state == State.COMPLETED:  # other ends are printed with their reason
        lines.append(f"  pending          {visible(state.why)}")
    if best and best.progress.best:
        lines.append(f"  best validation  {_validation(best.progress.best)}")
    if checkpoint:
        lines.append(f"  checkpoint       {visible(checkpoint.found.url or str(checkpoint.found.directory))}")
    lines.append(f"  metrics, logs    {visible(str(experiment.path / 'runs'))}")
    return "\n".join(lines)


def next_commands(experiment: Experiment, state: ExperimentState) -> str:
    checkpoint = experiment.best_checkpoint()
    if not state.over:
        return f"next:\n  detbuild activate {experiment.id}"
    lines = [f"detbuild describe {experiment.id}", f"detbuild logs {experiment.id}"]
    if checkpoint:
        lines.append(f"detbuild checkpoint download {checkpoint.uuid} -o DIR")
    return "next:\n" + "\n".join(f"  {line}" for line in lines)


def encodable(text: str, encoding: str) -> str:
    """Return text that `encoding` can write: charts in ASCII, other missing characters escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def bar(share: float, width: int = 24) -> str:
    """Return `[######------] 50 %`; a share outside 0..1 is clamped."""
    share = min(1.0, max(0.0, share))
    full = math.floor(share * width)
    return f"[{'#' * full}{'-' * (width - full)}] {100 * share:.0f} %"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return one block per value, sampled to `width`; empty for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:  # noqa: PLR2004
        return ""
    count = min(width, len(finite))
    picked = [finite[(i + 1) * len(finite) // count - 1] for i in range(count)]
    low, high = min(picked), max(picked)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(_share(value, low, high) * top)] for value in picked)


def curve(points: Sequence[tuple[float, float]], *, width: int = 60, height: int = 8) -> tuple[str, ...]:
    """Return lines of braille, `width` by `height` characters, for points with ascending x."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) < 2:  # noqa: PLR2004
        return ()
    x0, x1 = finite[0][0], finite[-1][0]
    y0, y1 = min(y for _, y in finite), max(y for _, y in finite)
    across, down = 2 * width - 1, 4 * height - 1
    placed = [(round(_share(x, x0, x1) * across), round((1 - _share(y, y0, y1)) * down)) for x, y in finite]
    cells = [[0] * width for _ in range(height)]
    for start, end in pairwise(placed):
        for x, y in _between(start, end):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return tuple("".join(chr(0x2800 + dots) for dots in line) for line in cells)


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (start[0] + round((end[0] - start[0]) * i / steps), start[1] + round((end[1] - start[1]) * i / steps))
        for i in range(steps + 1)
    ]


def _share(value: float, low: float, high: float) -> float:
    """Return the position of a value in low..high; halves, because the difference may overflow."""
    if high <= low:
        return 0.5
    return min(1.0, max(0.0, (value / 2 - low / 2) / (high / 2 - low / 2)))


def search_lines(state: ExperimentState, room: int | None) -> Iterator[str]:
    """Yield the lines of a search with several trials; `room` limits the width of its table."""
    trials = list(state.trials.values())
    goal = state.header.goal
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
    for trial in trials:
        value = _value(trial, goal)
        if value is not None:
            found.append(min([value, *found[-1:]], key=goal.cost))
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
    valued = ((_value(trial, goal), trial) for trial in trials)
    ranked = sorted(
        ((goal.cost(value), trial.id, trial) for value, trial in valued if value is not None),
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
