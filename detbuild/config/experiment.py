"""The experiment config as one frozen value, with the names and defaults of Determined's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from detbuild.config.cluster import Integrations, Pbs, Slurm
from detbuild.config.entrypoint import ConfigEntrypoint
from detbuild.config.environment import Environment
from detbuild.config.fields import Count, Many, Positive
from detbuild.config.hyperparameters import Double, Hyperparameter, Int, Log, leaves
from detbuild.config.lengths import NEVER, Period
from detbuild.config.logs import DEFAULT_POLICIES, LogPolicy, RetentionPolicy, with_defaults
from detbuild.config.masking import mask
from detbuild.config.mounts import BindMount, distinct
from detbuild.config.resources import Resources
from detbuild.config.searcher import Searcher
from detbuild.config.section import Section, wrong
from detbuild.config.storage import OwnFolder, Storage
from detbuild.config.training import Optimizations, Profiling, Reproducibility

Anything = Mapping[str, JsonValue]


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


class ExperimentConfig(Section):
    """Every field of Determined 0.12 to 0.38; what none of them sets has its default here."""

    version: Literal[0] = 0
    name: str | None = None
    description: str | None = None
    labels: Annotated[Many[str], AfterValidator(_unique)] = ()
    workspace: str = ""
    project: str = ""
    data: Anything = Field(default_factory=dict, repr=False)
    entrypoint: ConfigEntrypoint
    hyperparameters: Mapping[str, Hyperparameter] = Field(default_factory=dict)
    searcher: Searcher
    resources: Resources = Resources.model_construct()
    environment: Environment = Environment.model_construct()
    bind_mounts: Annotated[Many[BindMount], AfterValidator(distinct)] = ()
    checkpoint_storage: Storage = OwnFolder.model_construct()
    checkpoint_policy: Literal["best", "all", "none"] = "best"
    min_validation_period: Period = NEVER  # 0: only when the searcher asks
    min_checkpoint_period: Period = NEVER
    perform_initial_validation: bool = False
    records_per_epoch: Count = 0
    scheduling_unit: Positive = 100  # batches between two reports
    max_restarts: Count = 5
    reproducibility: Reproducibility = Reproducibility.model_construct()
    profiling: Profiling = Profiling.model_construct()
    optimizations: Optimizations = Optimizations.model_construct()
    log_policies: Annotated[Many[LogPolicy], AfterValidator(with_defaults)] = DEFAULT_POLICIES
    retention_policy: RetentionPolicy = RetentionPolicy.model_construct()
    integrations: Integrations | None = None
    preemption_timeout: Positive | None = None  # seconds
    debug: bool = False
    slurm: Slurm = Slurm.model_construct()
    pbs: Pbs = Pbs.model_construct()
    security: Anything | None = None
    tensorboard_storage: Anything | None = None
    data_layer: Anything | None = None
    internal: Anything | None = None

    @model_validator(mode="after")
    def _project_in_workspace(self) -> ExperimentConfig:
        if bool(self.workspace) != bool(self.project):
            given, other = ("workspace", "project") if self.workspace else ("project", "workspace")
            mend = f"add `{other}`, or remove both"
            raise wrong(f"needs {other} beside it", at=(given,), mend=mend, later=True)
        return self

    @model_validator(mode="after")
    def _length_for_a_trial_class(self) -> ExperimentConfig:
        if self.entrypoint.kind == "trial" and self.searcher.max_length is None:
            if self.searcher.name in _LENGTH_BY_OTHER_MEANS:
                return self
            mend = "add `max_length: {epochs: 1}` or another length"
            what = "needs max_length: a trial class does not know when to stop"
            raise wrong(what, at=("searcher",), mend=mend, later=True)
        return self

    @model_validator(mode="after")
    def _points_for_a_grid(self) -> ExperimentConfig:
        for path, leaf in leaves(self.hyperparameters):
            if self.searcher.name == "grid" and isinstance(leaf, (Int, Double, Log)) and leaf.count is None:
                mend = "add `count:`, the number of points of the range"
                at = ("hyperparameters", *path)
                raise wrong("needs count, as the searcher is grid", at=at, mend=mend, later=True)
        return self

    def resolved(self) -> dict[str, object]:
        """The complete config as JSON can carry it; parsing it again gives an equal config."""
        return self.model_dump(mode="json")

    def masked(self) -> dict[str, object]:
        """`resolved()` for the eyes of others: what is secret is hidden."""
        return mask(self.resolved())


_LENGTH_BY_OTHER_MEANS: Final = frozenset({"async_halving", "adaptive_asha", "pbt", "custom"})
