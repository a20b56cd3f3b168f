"""`create(local=False)`: an image of the context, and an experiment that gets the class in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.cli.output import view
from detbuild.config.host import host_config
from detbuild.config.sources import template_layers
from detbuild.engine.docker import DockerEngine
from detbuild.errors import CanceledError, ConfigError, ExperimentError
from detbuild.experiment import SubmitRequest, follow, prepare, this_host
from detbuild.experiment import submit as send
from detbuild.store.home import Home
from determined._contract.run_info import home_of
from determined._trial.context import Trial
from determined.experimental import _config
from determined.experimental._place import reach
from determined.experimental._say import LOG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.state import ExperimentState


def submit(
    trial_class: type,
    given: _config.Given,
    context_dir: str | Path,
    *,
    command: Sequence[str] | None,
    test: bool,
    templates: Sequence[str] = (),
) -> int:
    """Build the image and submit; return the experiment's ID, for a test after it has ended.

    Raises:
        DetbuildError: by its kind: the call, the context, the engine, the build, or the test failed.
    """
    _check(trial_class, context_dir)
    directory = Path(context_dir)
    host, home, engine = this_host(os.environ), Home.open(home_of(os.environ)), DockerEngine()
    own = host_config(home.path)
    below = (*template_layers(home.path, templates), *own.layers)
    with reach(trial_class, directory, command) as way, view(os.environ) as emit:
        config, text = _config.submitted(given, way.entrypoint, below)
        request = SubmitRequest(
            config=config,
            text=text,
            context_dir=directory,
            includes=way.includes,
            test_mode=test,
            host_config=own,
        )
        id_ = send(prepare(request, host, home, emit, engine=engine), host, home, emit, engine=engine)
        if test:
            try:
                _raise_failure(follow(home, id_, emit))
            except KeyboardInterrupt:
                LOG.info("detached; experiment %s keeps running: `detbuild logs %s -f`", id_, id_)
                raise
    return id_


def _check(trial_class: object, context_dir: str | Path) -> None:
    if not isinstance(trial_class, type) or not issubclass(trial_class, Trial):
        raise ConfigError(
            f"trial_def is {trial_class!r}, not a trial class",
            hint="derive it from determined.pytorch.PyTorchTrial or determined.keras.TFKerasTrial",
        )
    if not context_dir:
        raise ConfigError(
            "context_dir is required when local is False",
            hint='pass the directory of your code, e.g. context_dir="."',
        )


def _raise_failure(state: ExperimentState) -> None:
    if state.state == "CANCELED":
        raise CanceledError(f"experiment {state.header.id} was canceled")
    if state.state == "ERROR":
        raise ExperimentError(
            f"the test of experiment {state.header.id} failed: {state.why}",
            hint=f"see `detbuild logs {state.header.id}`",
        )
