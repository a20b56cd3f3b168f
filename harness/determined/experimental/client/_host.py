"""The way from a script to this host's experiments.

detbuild is imported when something of it is first needed: a script that names the client at its top also runs
inside containers, where there is no detbuild.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from determined._errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.engine.protocol import Engine
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home

TrialId = str | int | tuple[int, int]


@contextmanager
def explained() -> Iterator[None]:
    """Add the hint to the text of every error; say plainly where the client cannot work."""
    refuse_container()
    from determined.experimental._log import explained as with_hint

    with with_hint():
        yield


@contextmanager
def found() -> Iterator[None]:
    """The same, for a block that looks something up: what is not there is Determined's NotFoundException."""
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
    from determined._home import home_of

    return Home.open(home_of(os.environ))


def connect() -> Engine:
    from detbuild.engine.docker import DockerEngine

    return DockerEngine()


def folder_of(experiment_id: int) -> ExperimentFolder:
    """Raise NotFound when there is no such experiment."""
    with found():
        return home().experiment(experiment_id)


def trial_numbers(trial_id: TrialId) -> tuple[int, int]:
    """`"3/2"` and `(3, 2)` are trial 2 of experiment 3; `3` and `"3"` its first trial.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(trial_id, tuple):
        experiment, trial = trial_id
        return int(experiment), int(trial)
    experiment_id, _, number = str(trial_id).partition("/")
    try:
        return int(experiment_id), int(number or 1)
    except ValueError:
        raise ValueError(f"{trial_id!r} is no trial; write EXPERIMENT/TRIAL, such as '3/1'") from None


def refuse_container() -> None:
    """Say plainly where the client cannot work."""
    try:
        import detbuild.errors  # noqa: F401
    except ModuleNotFoundError as error:
        raise HarnessError(
            "determined.experimental.client looks at the experiments of a host, and detbuild is not there",
            hint="call it where detbuild is installed; inside a run, det.get_cluster_info() tells of the run",
        ) from error
