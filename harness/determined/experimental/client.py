"""Experiments, trials, checkpoints and models of this host, from Python.

    from determined.experimental import client

    experiment = client.create_experiment(config="config.yaml", model_dir=".")
    experiment.wait()
    path = experiment.top_checkpoint().download()

Names and signatures are Determined's. There is no server: all calls read and write files below
`$DETBUILD_HOME`. The ID of a trial consists of its experiment and its number, e.g. "3/2".

A script that imports this module also runs in containers, where detbuild is not installed: there only the
use of a name raises an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from determined._contract.errors import HarnessError
from determined.experimental._host_only import host_only
from determined.experimental._say import note_no_server

if TYPE_CHECKING:
    from detbuild.sdk import (
        Checkpoint,
        CheckpointOrderBy,
        CheckpointSortBy,
        CheckpointState,
        CheckpointTrainingMetadata,
        Determined,
        DownloadMode,
        Experiment,
        ExperimentOrderBy,
        ExperimentReference,
        ExperimentSortBy,
        ExperimentState,
        LogLevel,
        Model,
        ModelFramework,
        ModelOrderBy,
        ModelSortBy,
        ModelVersion,
        OrderBy,
        Trial,
        TrialMetrics,
        TrialOrderBy,
        TrialReference,
        TrialSortBy,
        TrialState,
        create_experiment,
        create_model,
        get_checkpoint,
        get_experiment,
        get_model,
        get_model_labels,
        get_models,
        get_trial,
        iter_trials_metrics,
        list_experiments,
        list_models,
        stream_trials_metrics,
    )

__all__ = [
    "Checkpoint",
    "CheckpointOrderBy",
    "CheckpointSortBy",
    "CheckpointState",
    "CheckpointTrainingMetadata",
    "Determined",
    "DownloadMode",
    "Experiment",
    "ExperimentOrderBy",
    "ExperimentReference",
    "ExperimentSortBy",
    "ExperimentState",
    "LogLevel",
    "Model",
    "ModelFramework",
    "ModelOrderBy",
    "ModelSortBy",
    "ModelVersion",
    "OrderBy",
    "Trial",
    "TrialMetrics",
    "TrialOrderBy",
    "TrialReference",
    "TrialSortBy",
    "TrialState",
    "create_experiment",
    "create_model",
    "get_checkpoint",
    "get_experiment",
    "get_model",
    "get_model_labels",
    "get_models",
    "get_trial",
    "iter_trials_metrics",
    "list_experiments",
    "list_models",
    "login",
    "logout",
    "stream_trials_metrics",
]


def login(
    master: str | None = None,
    user: str | None = None,
    password: str | None = None,
    **options: Any,  # noqa: ANN401  (Determined's own signature)
) -> None:
    """Log that this has no effect; accepts all of Determined's arguments."""
    del master, user, password, options
    note_no_server("login")


def logout() -> None:
    """Log that this has no effect."""
    note_no_server("logout")


class _Unavailable(type):
    """A class that stands for a name of the host, where there is no host: every use raises."""

    _error: HarnessError

    def __call__(cls, *_args: object, **_options: object) -> NoReturn:
        raise cls._error

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by Python and by tools
            raise AttributeError(name)
        raise cls._error


def __getattr__(name: str) -> object:
    """Take a name from detbuild on its first use, so that the import costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'determined.experimental.client' has no attribute {name!r}")
    try:
        with host_only("determined.experimental.client"):
            from detbuild import sdk
    except HarnessError as error:
        return _Unavailable(name, (), {"_error": error})
    return getattr(sdk, name)


def __dir__() -> list[str]:
    return __all__
