"""Checkpoints that an experiment or a trial started from, which garbage collection must keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.store.files import LARGEST_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.records import RunRecords
    from detbuild.store.state import ExperimentState

_NO_SOURCE: Final = b'"source_checkpoint_uuid": null'


def sources(home: Home) -> Iterator[tuple[int, str]]:
    """Yield each experiment of this home that starts from a checkpoint, with its UUID."""
    for number in home.ids():
        uuid = _source(home.folder(number))
        if uuid:
            yield number, uuid


def parents(trials: Iterable[Iterable[RunRecords]]) -> frozenset[str]:
    """Return the checkpoints of other trials that a trial started from.

    Args:
        trials: The runs of each trial.
    """
    return frozenset(uuid for runs in trials for uuid in _foreign(tuple(runs)))


def pending_sources(state: ExperimentState) -> frozenset[str]:
    """Return the checkpoints that trials without a run will start from."""
    return frozenset(uuid for trial in state.trials.values() if not trial.runs for uuid in trial.source)


def _foreign(runs: tuple[RunRecords, ...]) -> Iterator[str]:
    own = {checkpoint.uuid for run in runs for checkpoint in run.checkpoints}
    return (run.restored.uuid for run in runs if run.restored and run.restored.uuid not in own)


def _source(folder: ExperimentFolder) -> str:
    try:
        body = folder.files.read(folder.config_file.name, LARGEST_DOCUMENT)
        if _NO_SOURCE in body:  # fast path: nearly all of possibly thousands
            return ""
        searcher = json.loads(body).get("searcher") or {}
        return str(searcher.get("source_checkpoint_uuid") or "")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""  # a submission that never finished
