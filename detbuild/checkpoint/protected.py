"""Checkpoints that something started from: no rule may remove them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from detbuild.store.home import Home
    from detbuild.store.runs import RunRecords
    from detbuild.store.states import ExperimentState

_NO_SOURCE: Final = b'"source_checkpoint_uuid": null'


def sources(home: Home) -> Iterator[tuple[int, str]]:
    """Each experiment of this home that was told to start from a checkpoint, and the uuid of that."""
    for number in home.ids():
        uuid = _source(home.folder(number).config_file)
        if uuid:
            yield number, uuid


def parents(trials: Iterable[Iterable[RunRecords]]) -> frozenset[str]:
    """The checkpoints that a trial has started from and that are none of its own.

    Args:
        trials: The runs of each.
    """
    return frozenset(uuid for runs in trials for uuid in _foreign(tuple(runs)))


def awaited(state: ExperimentState) -> frozenset[str]:
    """The checkpoints of other trials from which one is to start that has not begun yet."""
    return frozenset(uuid for trial in state.trials.values() if not trial.runs for uuid in trial.source)


def _foreign(runs: tuple[RunRecords, ...]) -> Iterator[str]:
    own = {checkpoint.uuid for run in runs for checkpoint in run.checkpoints}
    return (run.restored.uuid for run in runs if run.restored and run.restored.uuid not in own)


def _source(config_file: Path) -> str:
    try:
        body = config_file.read_bytes()  # allowed: in no mount
        if _NO_SOURCE in body:  # nearly all of them, and there may be thousands
            return ""
        searcher = json.loads(body).get("searcher") or {}
        return str(searcher.get("source_checkpoint_uuid") or "")
    except (OSError, ValueError, AttributeError):
        return ""  # a submission that never finished
