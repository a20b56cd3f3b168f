"""An experiment of this host whose one run is a script that is running already."""

from __future__ import annotations

import os
import queue
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from determined._errors import HarnessError
from determined.experimental._say import LOG, logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from determined._run_info import RunInfo
    from determined.experimental.core_v2 import Config

_LABEL = "external:"
_BUCKETS = {"s3": "s3", "gs": "gcs"}
_OF_SEARCHER = ("metric", "smaller_is_better")


@contextmanager
def unmanaged_run(said: Config) -> Iterator[Callable[[], RunInfo]]:
    """Give what makes the experiment when it is called, by one process; it ends with the block."""
    run = _Run(said)
    code = 1
    try:
        yield run.begin
        code = 0
    finally:
        run.end(code)


class _Run:
    """A thread of its own keeps the experiment: there its one run lasts as long as the script's block."""

    def __init__(self, said: Config) -> None:
        self._said = said
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
                _kept(self._said, self._train)
        except DetbuildError as error:
            self._begun.put(error)
        finally:  # by a defect of ours, whose traceback Python shows
            self._begun.put(HarnessError("the experiment could not be made"))

    def _train(self, info: RunInfo) -> int:
        self._begun.put(info)
        return self._ended.get()


def _kept(said: Config, train: Callable[[RunInfo], int]) -> None:
    import json

    from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
    from detbuild.experiment import SubmitRequest, run_here, this_host
    from detbuild.store.home import Home
    from determined._home import home_of

    home = Home.open(home_of(os.environ))
    config = config_from_mapping(_raw(said, home), defaults=LOCAL_DEFAULTS)
    text = json.dumps(config.resolved(), indent=2)
    request = SubmitRequest(config=config, text=text, context_dir=Path.cwd())
    run_here(request, this_host(os.environ), home, lambda _: None, train=train)


def _raw(said: Config, home: Home) -> dict[str, object]:
    external = _external(said)
    searcher: dict[str, object] = {
        **{key: value for key, value in (said.searcher or {}).items() if key in _OF_SEARCHER},
        "name": "single",  # whatever searches is outside: this is one trial of it
        "max_length": None,
        "source_checkpoint_uuid": _newest_checkpoint(home, external) if external else None,
    }
    given = {
        "name": said.name,
        "description": said.description,
        "data": said.data,
        "hyperparameters": said.hparams,
        "checkpoint_storage": _storage(said),
        "workspace": said.workspace,
        "project": said.project,
    }
    return {
        **{key: value for key, value in given.items() if value is not None},
        "labels": [*(said.labels or ()), *([external] if external else ())],
        "entrypoint": ["python3", *sys.argv],
        "searcher": searcher,
        "resources": {"slots_per_trial": 0},
        "max_restarts": 0,
    }


def _storage(said: Config) -> object:
    """A directory, or an address such as s3://bucket/prefix, in the words of a config."""
    from detbuild.errors import ConfigError

    given = said.checkpoint_storage
    if not isinstance(given, str):
        return given
    scheme, found, rest = given.partition("://")
    if not found or scheme == "file":
        return {"type": "shared_fs", "host_path": str(Path(rest or given).resolve())}
    if scheme not in _BUCKETS:
        raise ConfigError(
            f"checkpoint_storage: {given} is no address that checkpoints can be kept at",
            hint="write a directory, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, or a map as in a config",
        )
    bucket, _, prefix = rest.partition("/")
    return {"type": _BUCKETS[scheme], "bucket": bucket, "prefix": prefix}


def _external(said: Config) -> str:
    names = [name for name in (said.external_experiment_id, said.external_trial_id) if name]
    return f"{_LABEL}{'/'.join(names)}" if names else ""


def _newest_checkpoint(home: Home, label: str) -> str | None:
    """Of the last experiment that bears the label and has one."""
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli.views import no_output

    def newest(folder: ExperimentFolder) -> str:
        found = checkpoints_of(folder) if label in folder.header().labels else ()
        return next((each.checkpoint.uuid for each in found if each.state == "COMPLETED"), "")

    return next(filter(None, home.each(newest, no_output)), None)
