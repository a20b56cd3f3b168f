"""An experiment of this host whose only run is the current script."""

from __future__ import annotations

import os
import queue
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError
from determined.experimental._say import LOG, logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home
    from determined._contract.run_info import RunInfo
    from determined.experimental.core_v2 import Config

_LABEL = "external:"
_BUCKETS = {"s3": "s3", "gs": "gcs"}
_OF_SEARCHER = ("metric", "smaller_is_better")


@contextmanager
def unmanaged_run(config: Config) -> Iterator[Callable[[], RunInfo]]:
    """Yield a function that creates the experiment, for one process to call; the block's end ends it."""
    run = _Run(config)
    code = 1
    try:
        yield run.begin
        code = 0
    finally:
        run.end(code)


class _Run:
    """Runs the experiment in a thread; its only run lasts as long as the script's block."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._begun: queue.SimpleQueue[RunInfo | BaseException] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None

    def begin(self) -> RunInfo:
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        begun = self._begun.get()
        if isinstance(begun, BaseException):
            raise begun
        with logged():
            LOG.info("experiment %s: %s", begun.experiment_id, Path(begun.run_dir).parents[1])
        return begun

    def end(self, code: int) -> None:
        if self._keeper is not None:
            self._ended.put(code)
            self._keeper.join()

    def _keep(self) -> None:
        from detbuild.errors import DetbuildError
        from determined.experimental._log import explained

        try:
            with explained():
                _kept(self._config, self._train)
        except DetbuildError as error:
            self._begun.put(error)
        finally:  # after a bug in detbuild, whose traceback Python shows
            self._begun.put(HarnessError("cannot create the experiment"))

    def _train(self, info: RunInfo) -> int:
        self._begun.put(info)
        return self._ended.get()


def _kept(config: Config, train: Callable[[RunInfo], int]) -> None:
    import json

    from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
    from detbuild.experiment import SubmitRequest, run_here, this_host
    from detbuild.store.home import Home
    from determined._contract.run_info import home_of

    home = Home.open(home_of(os.environ))
    resolved = config_from_mapping(_raw(config, home), defaults=LOCAL_DEFAULTS)
    text = json.dumps(resolved.resolved(), indent=2)
    request = SubmitRequest(config=resolved, text=text, context_dir=Path.cwd())
    run_here(request, this_host(os.environ), home, lambda _: None, train=train)


def _raw(config: Config, home: Home) -> dict[str, object]:
    external = _external(config)
    searcher: dict[str, object] = {
        **{key: value for key, value in (config.searcher or {}).items() if key in _OF_SEARCHER},
        "name": "single",  # the search, if any, is external: this is one of its trials
        "max_length": None,
        "source_checkpoint_uuid": _newest_checkpoint(home, external) if external else None,
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
    from detbuild.errors import ConfigError

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


def _newest_checkpoint(home: Home, label: str) -> str | None:
    """Return the newest checkpoint of the last experiment with the label that has one."""
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli.output import no_output

    def newest(folder: ExperimentFolder) -> str:
        found = checkpoints_of(folder) if label in folder.header().labels else ()
        return next((each.checkpoint.uuid for each in found if each.state == "COMPLETED"), "")

    return next(filter(None, home.each(newest, no_output)), None)
