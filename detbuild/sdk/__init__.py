"""Determined's SDK on the files of this host: what `determined.experimental` hands over to.

Users import it from `determined.experimental` and `determined.experimental.client`. It is never in an image.
"""

from __future__ import annotations

from detbuild.sdk.checkpoint import Checkpoint, CheckpointTrainingMetadata, TrialMetrics
from detbuild.sdk.determined import Determined
from detbuild.sdk.enums import (
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
from detbuild.sdk.experiment import Experiment
from detbuild.sdk.model import Model, ModelVersion
from detbuild.sdk.trial import Trial

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
    "stream_trials_metrics",
]
