"""An experiment of this host whose only run is the current script."""

from __future__ import annotations

import json
import queue
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.api import submission
from detbuild.api.config import local_config
from detbuild.errors import ConfigError, DetbuildError
from detbuild.events import ignore
from detbuild.sdk import host
from determined._contract.errors import HarnessError
from determined.experimental._say import LOG, logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined._contract.run_info import RunInfo
    from determined.experimental._unmanaged_config import Config

_LABEL = "external:"
_BUCKETS = {"s3": "s3", "gs": "gcs"}
_OF_SEARCHER = ("metric", "smaller_is_better")


@contextmanager
def unmanaged_run(config: Config) -> Iterator[RunInfo]:
    """Create the experiment and yield its run, which the block's end ends; it failed if that is an exception.

    A thread runs the experiment, whose run lasts as long as the block.
    """
    begun: queue.SimpleQueue[RunInfo | Exception] = queue.SimpleQueue()
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def train(info: RunInfo) -> int:
        begun.put(info)
        return ended.get()

    def run() -> None:
        try:
            with host.explained():
                _run_experiment(config, train)
        except DetbuildError as error:
            begun.put(error)
        finally:  # after a bug in detbuild, whose traceback Python shows
            begun.put(HarnessError("cannot create the experiment"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    code = 1
    try:
        info = begun.get()
        if isinstance(info, Exception):
            raise info
        with logged():
            LOG.info("experiment %s: %s", info.experiment_id, Path(info.run_dir).parents[1])
        yield info
        code = 0
    finally:
        ended.put(code)
        thread.join()


def _run_experiment(config: Config, train: Callable[[RunInfo], int]) -> None:
    resolved = local_config(_raw(config))
    text = json.dumps(resolved.resolved(), indent=2)
    request = submission.request_parsed(resolved, text, Path.cwd())
    submission.run_here(host.client(), request, ignore, train=train)


def _raw(config: Config) -> dict[str, object]:
    external = _external(config)
    searcher: dict[str, object] = {
        **{key: value for key, value in (config.searcher or {}).items() if key in _OF_SEARCHER},
        "name": "single",  # the search, if any, is external: this is one of its trials
        "max_length": None,
        "source_checkpoint_uuid": _newest_checkpoint(external) if external else None,
    }
    given = {
        "name": config.name,
        "description": config.description,
        "data": config.data,
        "hyperparameters": config.hparams,
        "checkpoint_storage": _storage(config),
        "workspace": config.workspace,
        "project": config.project,
    }
    return {
        **{key: value for key, value in given.items() if value is not None},
        "labels": [*(config.labels or ()), *([external] if external else ())],
        "entrypoint": ["python3", *sys.argv],
        "searcher": searcher,
        "resources": {"slots_per_trial": 0},
        "max_restarts": 0,
    }


def _storage(config: Config) -> object:
    """Convert a directory, or a URL such as s3://bucket/prefix, to a config's `checkpoint_storage`."""
    given = config.checkpoint_storage
    if not isinstance(given, str):
        return given
    scheme, found, rest = given.partition("://")
    if not found or scheme == "file":
        return {"type": "shared_fs", "host_path": str(Path(rest or given).resolve())}
    if scheme not in _BUCKETS:
        raise ConfigError(
            f"checkpoint_storage: {given} is not a supported storage URL",
            hint="pass a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a map as in a config",
        )
    bucket, _, prefix = rest.partition("/")
    return {"type": _BUCKETS[scheme], "bucket": bucket, "prefix": prefix}


def _external(config: Config) -> str:
    names = [name for name in (config.external_experiment_id, config.external_trial_id) if name]
    return f"{_LABEL}{'/'.join(names)}" if names else ""


def _newest_checkpoint(label: str) -> str | None:
    return host.client(host.warnings_only).newest_checkpoint(label)
