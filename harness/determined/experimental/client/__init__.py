"""Experiments, trials, checkpoints and models of this host, from Python.

    from determined.experimental import client

    experiment = client.create_experiment(config="config.yaml", model_dir=".")
    experiment.wait()
    path = experiment.top_checkpoint().download()

Names and signatures are Determined's. There is no server: all calls read and write files below
`$DETBUILD_HOME`. The ID of a trial consists of its experiment and its number, e.g. "3/2".
"""

from __future__ import annotations

from determined.experimental.client._checkpoint import Checkpoint, CheckpointTrainingMetadata
from determined.experimental.client._determined import Determined, login
from determined.experimental.client._enums import (
    CheckpointSortBy,
    CheckpointState,
    DownloadMode,
    ExperimentSortBy,
    ExperimentState,
    LogLevel,
    ModelFramework,
    ModelSortBy,
    OrderBy,
    TrialSortBy,
    TrialState,
)
from determined.experimental.client._experiment import Experiment
from determined.experimental.client._metrics import TrialMetrics
from determined.experimental.client._model import Model, ModelVersion
from determined.experimental.client._trial import Trial

# Older names of Determined.
ExperimentReference = Experiment
TrialReference = Trial
CheckpointOrderBy = ExperimentOrderBy = ModelOrderBy = TrialOrderBy = OrderBy

_here = Determined()
create_experiment = _here.create_experiment
create_model = _here.create_model
get_checkpoint = _here.get_checkpoint
get_experiment = _here.get_experiment
get_model = _here.get_model
get_model_labels = _here.get_model_labels
get_models = _here.get_models
get_trial = _here.get_trial
iter_trials_metrics = _here.iter_trials_metrics
list_experiments = _here.list_experiments
list_models = _here.list_models
logout = _here.logout
stream_trials_metrics = _here.stream_trials_metrics

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
