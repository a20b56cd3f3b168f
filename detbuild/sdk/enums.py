"""States, orders and levels under Determined's names."""

from __future__ import annotations

from enum import Enum
from typing import Final

# States that Determined does not have, each with the nearest one that it has.
_NEAREST: Final = {"STATE_STOPPING_PAUSED": "STATE_PAUSED", "STATE_WAITING": "STATE_ACTIVE"}


class OrderBy(Enum):
    """Ascending or descending."""

    ASC = "ORDER_BY_ASC"
    DESC = "ORDER_BY_DESC"
    ASCENDING = ASC
    DESCENDING = DESC


class ExperimentState(Enum):
    """The state of an experiment."""

    UNSPECIFIED = "STATE_UNSPECIFIED"
    ACTIVE = "STATE_ACTIVE"
    PAUSED = "STATE_PAUSED"
    QUEUED = "STATE_QUEUED"
    PULLING = "STATE_PULLING"
    STARTING = "STATE_STARTING"
    RUNNING = "STATE_RUNNING"
    STOPPING_COMPLETED = "STATE_STOPPING_COMPLETED"
    STOPPING_CANCELED = "STATE_STOPPING_CANCELED"
    STOPPING_ERROR = "STATE_STOPPING_ERROR"
    STOPPING_KILLED = "STATE_STOPPING_KILLED"
    COMPLETED = "STATE_COMPLETED"
    CANCELED = "STATE_CANCELED"
    ERROR = "STATE_ERROR"
    DELETING = "STATE_DELETING"
    DELETED = "STATE_DELETED"
    DELETE_FAILED = "STATE_DELETE_FAILED"

    @classmethod
    def _missing_(cls, value: object) -> ExperimentState:
        return cls(_NEAREST.get(str(value), "STATE_UNSPECIFIED"))


class TrialState(Enum):
    """The state of a trial."""

    UNSPECIFIED = "STATE_UNSPECIFIED"
    ACTIVE = "STATE_ACTIVE"
    PAUSED = "STATE_PAUSED"
    QUEUED = "STATE_QUEUED"
    PULLING = "STATE_PULLING"
    STARTING = "STATE_STARTING"
    RUNNING = "STATE_RUNNING"
    STOPPING_COMPLETED = "STATE_STOPPING_COMPLETED"
    STOPPING_CANCELED = "STATE_STOPPING_CANCELED"
    STOPPING_ERROR = "STATE_STOPPING_ERROR"
    STOPPING_KILLED = "STATE_STOPPING_KILLED"
    COMPLETED = "STATE_COMPLETED"
    CANCELED = "STATE_CANCELED"
    ERROR = "STATE_ERROR"

    @classmethod
    def _missing_(cls, value: object) -> TrialState:
        return cls(_NEAREST.get(str(value), "STATE_UNSPECIFIED"))


class CheckpointState(Enum):
    """Whether a checkpoint exists."""

    UNSPECIFIED = "STATE_UNSPECIFIED"
    ACTIVE = "STATE_ACTIVE"
    COMPLETED = "STATE_COMPLETED"
    ERROR = "STATE_ERROR"
    DELETED = "STATE_DELETED"
    PARTIALLY_DELETED = "STATE_PARTIALLY_DELETED"

    @classmethod
    def _missing_(cls, value: object) -> CheckpointState:  # noqa: ARG003
        return cls.UNSPECIFIED


class ExperimentSortBy(Enum):
    """Fields to sort experiments by."""

    ID = "id"
    NAME = "name"
    STATE = "state"
    START_TIME = "created"
    END_TIME = "ended"
    NUM_TRIALS = "trial_count"
    CHECKPOINT_COUNT = "checkpoint_count"
    SEARCHER_METRIC_VAL = "best"


class TrialSortBy(Enum):
    """Fields to sort trials by."""

    UNSPECIFIED = "unspecified"
    ID = "id"
    START_TIME = "start_time"
    END_TIME = "end_time"
    STATE = "state"
    BEST_VALIDATION_METRIC = "best_validation_metric"
    LATEST_VALIDATION_METRIC = "latest_validation_metric"
    BATCHES_PROCESSED = "batches_processed"
    DURATION = "duration"
    RESTARTS = "restarts"


class CheckpointSortBy(Enum):
    """Fields to sort checkpoints by, other than validation metrics."""

    END_TIME = "end_time"
    STATE = "state"
    UUID = "uuid"
    BATCH_NUMBER = "batch_number"
    SEARCHER_METRIC = "searcher_metric"


class ModelSortBy(Enum):
    """Fields to sort models by."""

    UNSPECIFIED = "unspecified"
    NAME = "name"
    DESCRIPTION = "description"
    CREATION_TIME = "creation_time"
    LAST_UPDATED_TIME = "last_updated_time"
    NUM_VERSIONS = "num_versions"


class LogLevel(Enum):
    """The level of a log line, by its first word."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class DownloadMode(Enum):
    """Determined's ways to download a checkpoint. Here files are always read from their storage."""

    DIRECT = "direct"
    MASTER = "master"
    AUTO = "auto"


class ModelFramework(Enum):
    """The framework of a checkpoint."""

    PYTORCH = 1
    TENSORFLOW = 2
