"""Exports experiments as TensorBoard logs: one run per trial, with its hyperparameters.

A trial's own event files are copied, not linked: TensorBoard opens any file, and a trial may have left links
to files of the host. Scalars of a trial without event files come from its records.
"""

from __future__ import annotations

import posixpath
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError
from detbuild.events import Warned, ignore
from detbuild.report.document import flat
from detbuild.store.files import file_errors
from detbuild.store.state import State
from determined._contract.run_info import TENSORBOARD_DIR
from determined._contract.untrusted import UntrustedDir, UntrustedError, UntrustedMissingError, sized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.api.report import Row
    from detbuild.api.trial import Trial
    from detbuild.events import Emit
    from detbuild.store.state import TrialState
    from determined._contract.untrusted import Entry

_MOST_FILES: Final = 10_000  # in one run
_LARGEST: Final = 1 << 30  # bytes in one file
_MOST: Final = 4 << 30  # bytes in one run
_BLOCK: Final = 1 << 20
_STATUS: Final = {
    State.COMPLETED: "STATUS_SUCCESS",
    State.ERROR: "STATUS_FAILURE",
    State.CANCELED: "STATUS_FAILURE",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value under TensorBoard's tag."""

    tag: str
    step: int
    time: float
    value: float


@dataclass(frozen=True, slots=True)
class SelectedTrials:
    """Selected trials of one experiment, and the searcher metric, which the HParams page compares."""

    trials: Sequence[Trial]
    metric: str


def export(experiments: Sequence[SelectedTrials], directory: Path, emit: Emit = ignore) -> tuple[Path, ...]:
    """Write one directory per trial and return them.

    Args:
        experiments: trials to export; the HParams page compares them.
        directory: target, created if needed.
        emit: receives warnings of files that cannot be shown.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """
    require()
    columns = _columns(experiments)
    made = []
    for one in experiments:
        for trial in one.trials:
            place = directory / _name(trial)
            with file_errors(place):
                place.mkdir(parents=True, exist_ok=True)  # allowed: the user chose the path
                own = _copied(trial, place, emit)
                scalars = _validations(trial) if own else _scalars(trial)
                _write(place, (columns, *_session(trial)), _begun(trial.state), scalars)
            made.append(place)
    return tuple(made)


def refresh(experiments: Sequence[SelectedTrials], directory: Path) -> None:
    """Copy what the trials have added to their event files since the export."""
    for one in experiments:
        for trial in one.trials:
            place = directory / _name(trial)
            with file_errors(place):
                _copied(trial, place, ignore)


def _name(trial: Trial) -> str:
    return f"exp-{trial.experiment_id}-trial-{trial.id}"


def require() -> None:
    """Raise ConfigError if tensorboard is not installed."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard is not installed in this Python", hint="run `pip install 'detbuild[tensorboard]'`"
        )


def _copied(trial: Trial, place: Path, emit: Emit) -> bool:
    """Copy new event files of each run; return whether there are any."""
    found = False
    target = UntrustedDir(place)
    for run in trial.state.runs:
        name = f"run-{run.run}"
        if target.exists(name) and not target.is_directory(name):
            target.unlink(name)  # a link, as older versions made them
        source = trial.run_files(run.run).enter(TENSORBOARD_DIR)
        errors: list[UntrustedError] = []
        for entry in _files(source, errors):
            with _collected(errors):
                _copy(source, target, name, entry)
                found = found or "tfevents" in posixpath.basename(entry.path)
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            emit(Warned(f"TensorBoard does not show files of a trial: {errors[0]}{more}"))
    return found


def _files(source: UntrustedDir, errors: list[UntrustedError]) -> Iterator[Entry]:
    """Yield the files of a run, up to a total size."""
    size = 0
    with _collected(errors):
        for entry in source.walk(limit=_MOST_FILES):
            size += 0 if entry.is_directory else min(entry.status.st_size, _LARGEST)
            if size > _MOST:
                raise UntrustedError(source.root, f"holds more than {sized(_MOST)}")
            if not entry.is_directory:
                yield entry


@contextmanager
def _collected(errors: list[UntrustedError]) -> Iterator[None]:
    try:
        yield
    except UntrustedMissingError:
        return  # nothing was written, or it was removed
    except UntrustedError as error:
        errors.append(error)


def _copy(source: UntrustedDir, target: UntrustedDir, name: str, entry: Entry) -> None:
    """Append the missing part of a file to its copy."""
    copy = f"{name}/{entry.path}"
    with source.open(entry.path, limit=_LARGEST) as file:
        target.make_directory(posixpath.dirname(copy), exist_ok=True)
        copied = target.stat(copy).st_size if target.is_file(copy) else 0
        if copied > entry.status.st_size:
            target.unlink(copy)  # it was rewritten
            copied = 0
        file.seek(copied)
        with target.append(copy) as end:
            while end.tell() < _LARGEST and (block := file.read(_BLOCK)):
                end.write(block)


def _scalars(trial: Trial) -> Iterable[Scalar]:
    for group, row in trial.reports():
        yield from _of(group, row)


def _validations(trial: Trial) -> Iterable[Scalar]:
    """Yield validation metrics, which the HParams page reads next to the hyperparameters."""
    for group, row in trial.reports():
        if group == "validation":
            yield from _of(group, row)


def _of(group: str, row: Row) -> Iterable[Scalar]:
    for name, value in row.metrics.items():
        yield Scalar(f"{group}/{name}", row.steps, row.time, value)


def _write(place: Path, summaries: Sequence[object], begun: float, scalars: Iterable[Scalar]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in UntrustedDir(place).scan():
        if "tfevents" in old.path and old.path.endswith(".detbuild"):
            UntrustedDir(place).unlink(old.path)  # of an earlier export, which would duplicate all values
    writer = EventFileWriter(str(place), filename_suffix=".detbuild")
    try:
        for summary in summaries:
            writer.add_event(Event(summary=summary, wall_time=begun))
        for one in scalars:
            value = Summary.Value(tag=one.tag, simple_value=one.value)
            writer.add_event(Event(summary=Summary(value=[value]), step=one.step, wall_time=one.time))
    finally:
        writer.close()


def _begun(trial: TrialState) -> float:
    return next((run.started for run in trial.runs if run.started), None) or 0.0


def _columns(experiments: Sequence[SelectedTrials]) -> object:
    """Return the columns of the HParams page, which reads them from any one of the trials."""
    from tensorboard.plugins.hparams import summary_v2

    names = dict.fromkeys(
        name for one in experiments for t in one.trials for name in hparam_values(t.state.hparams)
    )
    metrics = dict.fromkeys(one.metric for one in experiments if one.metric)
    return summary_v2.hparams_config_pb(
        [summary_v2.HParam(name) for name in names],
        [summary_v2.Metric(f"validation/{metric}", display_name=metric) for metric in metrics],
    )


def _session(trial: Trial) -> Iterator[object]:
    """Yield the hyperparameters of a trial, and how it ended."""
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2, summary_v2

    name, state = f"{trial.experiment_id}/{trial.id}", trial.state
    yield summary_v2.hparams_pb(hparam_values(state.hparams), trial_id=name, start_time_secs=_begun(state))
    if state.ended:
        status = api_pb2.Status.Value(_STATUS.get(state.state, "STATUS_UNKNOWN"))
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=_ended(state))
        yield _summary(plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _summary(data: object) -> object:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata

    content = data.SerializeToString()  # type: ignore[attr-defined]  # generated classes have no types
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def _ended(trial: TrialState) -> float:
    return max((run.ended for run in trial.runs if run.ended), default=0.0)


def hparam_values(hparams: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """Flatten hyperparameters to the types of the plugin; others become text."""
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flat(hparams)
    }
