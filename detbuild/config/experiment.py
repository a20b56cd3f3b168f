"""The experiment config as one frozen value, with the names and defaults of Determined's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue

from detbuild.config.clauses import Clause, on_field, require, when
from detbuild.config.cluster import Integrations, Pbs, Slurm
from detbuild.config.entrypoint import IS_TRIAL, ConfigEntrypoint
from detbuild.config.environment import Environment
from detbuild.config.era import HAS_LENGTH, add_legacy_fields
from detbuild.config.fields import Count, ListOf, Positive, integral
from detbuild.config.hyperparameters import Hyperparameter
from detbuild.config.lengths import NEVER, Period
from detbuild.config.logs import DEFAULT_POLICIES, LogPolicy, RetentionPolicy, with_defaults
from detbuild.config.mounts import BindMount, distinct
from detbuild.config.problems import show
from detbuild.config.resources import Resources
from detbuild.config.searcher import WITHOUT_MAX_LENGTH, Searcher
from detbuild.config.secrets import SECRET, UNDER_SECRETS, mask
from detbuild.config.section import Section, wrong
from detbuild.config.storage import ExperimentDirectory, Storage
from detbuild.config.training import Optimizations, Profiling, Reproducibility
from determined._run_info import EXIT_TIMEOUT

Anything = Mapping[str, JsonValue]


_HOME: Final = ("workspace", "project")


def _version(value: object) -> object:
    if isinstance(value, bool):  # False == 0 in Python
        raise wrong(f"must be 0, not {show(value)}")
    return integral(value)


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _clauses(config: Clause) -> None:
    workspace, project = (
        {**require(name), **on_field(name, {"minLength": 1, "type": "string"})} for name in _HOME
    )
    trial_class = on_field("entrypoint", IS_TRIAL)
    by_length = on_field("searcher", {"not": on_field("name", {"enum": sorted(WITHOUT_MAX_LENGTH)})})
    config["allOf"] = [
        {"if": workspace, "then": project, "else": {"not": project}},
        when({"allOf": [trial_class, by_length]}, on_field("searcher", HAS_LENGTH)),
    ]
    add_legacy_fields(config)


class ExperimentConfig(Section):
    """A complete experiment config with the fields of Determined 0.12 to 0.38."""

    model_config = ConfigDict(json_schema_extra=_clauses)

    version: Annotated[Literal[0], BeforeValidator(_version)] = 0
    """Version of the format; only 0 exists."""
    name: str | None = None
    """Name of the experiment; absent: three words chosen at submission."""
    description: str | None = None
    """Short description."""
    labels: Annotated[ListOf[str], AfterValidator(_unique)] = ()
    """Labels for finding experiments."""
    workspace: str = ""
    """Workspace of a cluster; needs `project`; no effect on a single host."""
    project: str = ""
    """Project of a cluster; needs `workspace`; no effect on a single host."""
    data: Annotated[Anything, UNDER_SECRETS] = Field(default_factory=dict, repr=False)
    """Arbitrary values for the training code; those under `secrets` are never shown."""
    entrypoint: ConfigEntrypoint
    """What a trial runs: `module:Class` in the context directory, a shell command, or a list of a
    program and its arguments."""
    hyperparameters: Mapping[str, Hyperparameter] = Field(default_factory=dict)
    """Hyperparameters by name: a constant, a range or a choice (`type`: const, int, double, log,
    categorical), or a nested map."""
    searcher: Searcher
    """Search method and length of training."""
    resources: Resources = Resources.model_construct()
    """Resources of the host for each trial."""
    environment: Environment = Environment.model_construct()
    """Image and environment of the container."""
    bind_mounts: Annotated[ListOf[BindMount], AfterValidator(distinct)] = ()
    """Host directories to mount into the container."""
    checkpoint_storage: Storage = ExperimentDirectory.model_construct()
    """Where to keep checkpoints, and how many; without `type`: in the experiment's directory."""
    checkpoint_policy: Literal["best", "all", "none"] = "best"
    """When to checkpoint after a validation: if it is the best so far, always, or never."""
    min_validation_period: Period = NEVER
    """Validate at least this often; 0: only when the searcher requires it."""
    min_checkpoint_period: Period = NEVER
    """Checkpoint at least this often; 0: only by `checkpoint_policy` and at the end."""
    perform_initial_validation: bool = False
    """Validate once before training."""
    preflight_validation: bool = True
    """Validate one batch before training and restore all state, so that errors show within seconds."""
    records_per_epoch: Count = 0
    """Records per epoch, if the data loader does not provide it."""
    scheduling_unit: Positive = 100
    """Batches between reports of training metrics."""
    max_restarts: Count = 5
    """How often to restart a failed trial, each time from its newest checkpoint."""
    reproducibility: Reproducibility = Reproducibility.model_construct()
    """Random seeds."""
    profiling: Profiling = Profiling.model_construct()
    """Profiling of trials."""
    optimizations: Optimizations = Optimizations.model_construct()
    """Aggregation of gradients and mixed precision."""
    log_policies: Annotated[ListOf[LogPolicy], AfterValidator(with_defaults)] = DEFAULT_POLICIES
    """Actions on log lines that match a pattern."""
    retention_policy: RetentionPolicy = RetentionPolicy.model_construct()
    """Retention of logs on a cluster; no effect here: logs are kept with the experiment."""
    integrations: Integrations | None = None
    """Integrations of a cluster; no effect on a single host."""
    preemption_timeout: Positive | None = None
    """Seconds that a preempted trial has to checkpoint and exit before it is killed."""
    exit_timeout: Count = EXIT_TIMEOUT
    """Seconds to wait at the end for threads, processes and uploads that a trial left running."""
    debug: bool = False
    """Log debug messages."""
    slurm: Slurm = Slurm.model_construct()
    """Slurm options; no effect on a single host."""
    pbs: Pbs = Pbs.model_construct()
    """PBS options; no effect on a single host."""
    security: Annotated[Anything | None, SECRET] = None
    """Security settings of a cluster; no effect on a single host."""
    tensorboard_storage: Annotated[Anything | None, SECRET] = None
    """Field of old versions; no effect."""
    data_layer: Annotated[Anything | None, SECRET] = None
    """Field of old versions; no effect."""
    internal: Annotated[Anything | None, SECRET] = None
    """Field of old versions; no effect."""

    def resolved(self) -> dict[str, object]:
        """Return the complete config as JSON values, which parse to an equal config."""
        return self.model_dump(mode="json")

    def masked(self) -> dict[str, object]:
        """Return `resolved()` with secrets masked."""
        return mask(self.resolved(), type(self))
