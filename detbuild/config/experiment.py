"""The experiment config as one frozen value, with the names and defaults of Determined's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from detbuild.config.clauses import Clause, any_of, given, inside, when
from detbuild.config.cluster import Integrations, Pbs, Slurm
from detbuild.config.entrypoint import IS_TRIAL, ConfigEntrypoint
from detbuild.config.environment import Environment
from detbuild.config.era import RENAMED, with_era
from detbuild.config.fields import Count, Many, Positive, integral
from detbuild.config.hyperparameters import Hyperparameter
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


_HOME: Final = ("workspace", "project")
_LENGTH_BY_OTHER_MEANS: Final = frozenset({"async_halving", "adaptive_asha", "pbt", "custom"})


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _clauses(config: Clause) -> None:
    workspace, project = (
        {**given(name), **inside(name, {"minLength": 1, "type": "string"})} for name in _HOME
    )
    lengths = (
        given(name)
        for name in ("max_length", *(old for old, today in RENAMED.items() if today == "max_length"))
    )
    trial_class = inside("entrypoint", IS_TRIAL)
    by_length = inside("searcher", {"not": inside("name", {"enum": sorted(_LENGTH_BY_OTHER_MEANS)})})
    config["allOf"] = [
        {"if": workspace, "then": project, "else": {"not": project}},
        when({"allOf": [trial_class, by_length]}, inside("searcher", any_of(lengths))),
    ]
    with_era(config)


class ExperimentConfig(Section):
    """Every field of Determined 0.12 to 0.38; what none of them sets has its default here."""

    model_config = ConfigDict(json_schema_extra=_clauses)

    version: Annotated[Literal[0], BeforeValidator(integral)] = 0
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
            raise wrong(f"needs {other} beside it", at=(given,), mend=f"add `{other}`, or remove both")
        return self

    @model_validator(mode="after")
    def _length_for_a_trial_class(self) -> ExperimentConfig:
        if self.entrypoint.kind == "trial" and self.searcher.max_length is None:
            if self.searcher.name in _LENGTH_BY_OTHER_MEANS:
                return self
            mend = "add `max_length: {epochs: 1}` or another length"
            raise wrong(
                "needs max_length: a trial class does not know when to stop", at=("searcher",), mend=mend
            )
        return self

    def resolved(self) -> dict[str, object]:
        """The complete config as JSON can carry it; parsing it again gives an equal config."""
        return self.model_dump(mode="json")

    def masked(self) -> dict[str, object]:
        """`resolved()` for the eyes of others: what is secret is hidden."""
        return mask(self.resolved())
