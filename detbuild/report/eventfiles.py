"""A directory of TensorBoard logs for experiments: one run a trial, with its hyperparameters.

What a trial wrote itself is linked; scalars of a trial that wrote nothing come from our own records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.errors import ConfigError
from detbuild.report.document import flat
from detbuild.store.files import file_errors
from detbuild.store.series import reports
from determined._run_info import TENSORBOARD_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.series import Row
    from detbuild.store.state import TrialState

_STATUS: Final = {"COMPLETED": "STATUS_SUCCESS", "ERROR": "STATUS_FAILURE", "CANCELED": "STATUS_FAILURE"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value under the tag that TensorBoard groups it by."""

    tag: str
    step: int
    time: float
    value: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """Trials of one experiment, and the searcher's metric, which the HParams page compares."""

    folder: ExperimentFolder
    trials: Sequence[TrialState]
    metric: str


def lay_out(experiments: Sequence[Chosen], directory: Path) -> tuple[Path, ...]:
    """Make a directory a trial and return them.

    Args:
        experiments: what to lay out; the HParams page has their hyperparameters and metrics side by side.
        directory: where; made when it is not there.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """
    require()
    columns = _columns(experiments)
    made = []
    for one in experiments:
        for trial in one.trials:
            place = directory / f"exp-{one.folder.id}-trial-{trial.id}"
            with file_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                own = _linked(one.folder, trial, place)
                scalars = _validations(one.folder, trial) if own else _scalars(one.folder, trial)
                _write(place, (columns, *_session(one.folder.id, trial)), _begun(trial), scalars)
            made.append(place)
    return tuple(made)


def require() -> None:
    """Raise ConfigError, with what to install, where tensorboard is missing."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise ConfigError(
            "TensorBoard is not installed in this Python", mend="pip install 'detbuild[tensorboard]'"
        )


def _linked(folder: ExperimentFolder, trial: TrialState, place: Path) -> bool:
    """Link what each run wrote; whether there was anything."""
    found = False
    for run in trial.runs:
        source = folder.run(trial.id, run.run).path / TENSORBOARD_DIR
        if source.is_dir() and any(source.rglob("*tfevents*")):
            link = place / f"run-{run.run}"
            if not link.is_symlink():
                link.symlink_to(source, target_is_directory=True)
            found = True
    return found


def _scalars(folder: ExperimentFolder, trial: TrialState) -> Iterable[Scalar]:
    for group, row in reports(folder, trial):
        yield from _of(group, row)


def _validations(folder: ExperimentFolder, trial: TrialState) -> Iterable[Scalar]:
    """The HParams page reads its metrics beside the hyperparameters, so those of validation are there too."""
    for group, row in reports(folder, trial):
        if group == "validation":
            yield from _of(group, row)


def _of(group: str, row: Row) -> Iterable[Scalar]:
    for name, value in row.metrics.items():
        yield Scalar(f"{group}/{name}", row.steps, row.time, value)


def _write(place: Path, summaries: Sequence[object], begun: float, scalars: Iterable[Scalar]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in place.glob("*tfevents*.detbuild"):
        old.unlink()  # of an earlier export: two would show everything twice
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


def _columns(experiments: Sequence[Chosen]) -> object:
    """What the HParams page compares. It takes this from one of the trials, so each has the same."""
    from tensorboard.plugins.hparams import summary_v2

    names = dict.fromkeys(
        name for one in experiments for t in one.trials for name in hparam_values(t.hparams)
    )
    metrics = dict.fromkeys(one.metric for one in experiments if one.metric)
    return summary_v2.hparams_config_pb(
        [summary_v2.HParam(name) for name in names],
        [summary_v2.Metric(f"validation/{metric}", display_name=metric) for metric in metrics],
    )


def _session(experiment_id: int, trial: TrialState) -> Iterator[object]:
    """The values of this trial, and how it ended."""
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2, summary_v2

    name = f"{experiment_id}/{trial.id}"
    yield summary_v2.hparams_pb(hparam_values(trial.hparams), trial_id=name, start_time_secs=_begun(trial))
    if trial.ended:
        status = api_pb2.Status.Value(_STATUS.get(trial.state, "STATUS_UNKNOWN"))
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=_ended(trial))
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
    """Flat ones of the types that the plugin knows; all else as text."""
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flat(hparams)
    }
