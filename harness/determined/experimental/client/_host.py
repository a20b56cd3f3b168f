"""Access from a script to this host's experiments.

detbuild is imported lazily: a script that imports the client at its top also runs in containers, where
detbuild is not installed.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from determined._contract.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.engine.protocol import Engine
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

TrialId = str | int | tuple[int, int]


@contextmanager
def explained() -> Iterator[None]:
    """Add the hint to the text of every error; fail in a container, where the client cannot work."""
    require_host()
    from determined.experimental._log import explained as with_hint

    with with_hint():
        yield


@contextmanager
def found() -> Iterator[None]:
    """The same for a lookup: a missing object raises Determined's NotFoundException."""
    with explained():
        from detbuild.errors import ConfigError
        from determined.experimental.client._not_found import NotFound

        try:
            yield
        except ConfigError as error:
            raise NotFound(str(error), hint=error.hint) from error


def home() -> Home:
    """Open `$DETBUILD_HOME`."""
    from detbuild.store.home import Home
    from determined._contract.run_info import home_of

    return Home.open(home_of(os.environ))


def connect() -> Engine:
    from detbuild.engine.docker import DockerEngine

    return DockerEngine()


def folder_of(experiment_id: int) -> ExperimentFolder:
    """Return the folder of an experiment; raise NotFound without one."""
    with found():
        return home().experiment(experiment_id)


def trial_numbers(trial_id: TrialId) -> tuple[int, int]:
    """Parse a trial ID: `"3/2"` and `(3, 2)` are trial 2 of experiment 3; `3` and `"3"` its first trial.

    Raises:
        ValueError: It has another form.
    """
    if isinstance(trial_id, tuple):
        experiment, trial = trial_id
        return int(experiment), int(trial)
    experiment_id, _, number = str(trial_id).partition("/")
    try:
        return int(experiment_id), int(number or 1)
    except ValueError:
        raise ValueError(f"{trial_id!r} is not a trial; expected EXPERIMENT/TRIAL, e.g. '3/1'") from None


def require_host() -> None:
    """Raise an error without detbuild, e.g. in a container."""
    try:
        import detbuild.errors  # noqa: F401
    except ModuleNotFoundError as error:
        raise HarnessError(
            "determined.experimental.client accesses experiments of a host, but detbuild is not installed",
            hint="call it where detbuild is installed; inside a run, use det.get_cluster_info()",
        ) from error
