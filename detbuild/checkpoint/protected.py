"""Checkpoints that no rule may remove: those of the model registry, and those that something started from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from detbuild.store.home import Home
    from detbuild.store.runs import RunRecords

_NO_SOURCE: Final = b'"source_checkpoint_uuid": null'


def registered(home: Home) -> frozenset[str]:
    """The checkpoints that are versions of a model.

    `models/<name>.json` of the home holds {"versions": [{"checkpoint": uuid, ...}, ...]}.

    Raises:
        EngineError: A file cannot be read: what it protects is not known, so nothing may be removed.
    """
    found: set[str] = set()
    for file in sorted((home.path / "models").glob("*.json")):
        found |= _versions(file)
    return frozenset(found)


def _versions(file: Path) -> set[str]:
    try:
        return {str(version["checkpoint"]) for version in json.loads(file.read_bytes())["versions"]}
    except FileNotFoundError:
        return set()  # the model was removed this moment
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"cannot read {file}: {error}; no checkpoint is removed before it can be",
            mend="mend it, or move it away",
        ) from error


def sources(home: Home) -> frozenset[str]:
    """The checkpoints that an experiment of this home was told to start from."""
    return frozenset(uuid for number in home.ids() if (uuid := _source(home.folder(number).config_file)))


def parents(trials: Iterable[Iterable[RunRecords]]) -> frozenset[str]:
    """The checkpoints that a trial has started from and that are none of its own.

    Args:
        trials: The runs of each.
    """
    return frozenset(uuid for runs in trials for uuid in _foreign(tuple(runs)))


def _foreign(runs: tuple[RunRecords, ...]) -> Iterator[str]:
    own = {checkpoint.uuid for run in runs for checkpoint in run.checkpoints}
    return (run.restored.uuid for run in runs if run.restored and run.restored.uuid not in own)


def _source(config_file: Path) -> str:
    try:
        body = config_file.read_bytes()
        if _NO_SOURCE in body:  # nearly all of them, and there may be thousands
            return ""
        searcher = json.loads(body).get("searcher") or {}
        return str(searcher.get("source_checkpoint_uuid") or "")
    except (OSError, ValueError, AttributeError):
        return ""  # a submission that never finished
