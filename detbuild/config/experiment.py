"""The experiment config as one frozen value, with the names and defaults of Determined's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue

from detbuild.config.clauses import Clause, given, inside, when
from detbuild.config.cluster import Integrations, Pbs, Slurm
from detbuild.config.entrypoint import IS_TRIAL, ConfigEntrypoint
from detbuild.config.environment import Environment
from detbuild.config.era import HAS_LENGTH, with_era
from detbuild.config.fields import Count, Many, Positive, integral
from detbuild.config.hyperparameters import Hyperparameter
from detbuild.config.lengths import NEVER, Period
from detbuild.config.logs import DEFAULT_POLICIES, LogPolicy, RetentionPolicy, with_defaults
from detbuild.config.mounts import BindMount, distinct
from detbuild.config.problems import show
from detbuild.config.resources import Resources
from detbuild.config.searcher import BY_OTHER_MEANS, Searcher
from detbuild.config.secrets import SECRET, UNDER_SECRETS, mask
from detbuild.config.section import Section, wrong
from detbuild.config.storage import OwnFolder, Storage
from detbuild.config.training import Optimizations, Profiling, Reproducibility
from determined._run_info import EXIT_TIMEOUT

Anything = Mapping[str, JsonValue]


_HOME: Final = ("workspace", "project")


def _version(value: object) -> object:
    if isinstance(value, bool):  # Python takes False for 0
        raise wrong(f"must be 0, not {show(value)}")
    return integral(value)


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _clauses(config: Clause) -> None:
    workspace, project = (
        {**given(name), **inside(name, {"minLength": 1, "type": "string"})} for name in _HOME
    )
    trial_class = inside("entrypoint", IS_TRIAL)
    by_length = inside("searcher", {"not": inside("name", {"enum": sorted(BY_OTHER_MEANS)})})
    config["allOf"] = [
        {"if": workspace, "then": project, "else": {"not": project}},
        when({"allOf": [trial_class, by_length]}, inside("searcher", HAS_LENGTH)),
    ]
    with_era(config)


class ExperimentConfig(Section):
    """Every field of Determined 0.12 to 0.38; what none of them sets has its default here."""

    model_config = ConfigDict(json_schema_extra=_clauses)

    version: Annotated[Literal[0], BeforeValidator(_version)] = 0
    """The version of the format: 0 is the only one there is."""
    name: str | None = None
    """What the experiment is called; absent: three words chosen at submission."""
    description: str | None = None
    """What it is about, in a sentence."""
    labels: Annotated[Many[str], AfterValidator(_unique)] = ()
    """Words by which experiments are found again."""
    workspace: str = ""
    """Of a cluster, without meaning on one host; needs `project` beside it."""
    project: str = ""
    """Of a cluster, without meaning on one host; needs `workspace` beside it."""
    data: Annotated[Anything, UNDER_SECRETS] = Field(default_factory=dict, repr=False)
    """Anything the training code wants to know; what stands under `secrets` is never shown."""
    entrypoint: ConfigEntrypoint
    """What a trial runs: `module:Class`, relative to the context directory; or a shell command; or a
    list of a program and its arguments."""
    hyperparameters: Mapping[str, Hyperparameter] = Field(default_factory=dict)
    """By name: a constant, a range or a choice (`type`: const, int, double, log, categorical), or a
    map of more of them."""
    searcher: Searcher
    """Which trials are made, and how long each is trained."""
    resources: Resources = Resources.model_construct()
    """What a trial is given of the host."""
    environment: Environment = Environment.model_construct()
    """What surrounds the code in the container."""
    bind_mounts: Annotated[Many[BindMount], AfterValidator(distinct)] = ()
    """Directories of the host that a trial sees."""
    checkpoint_storage: Storage = OwnFolder.model_construct()
    """Where checkpoints are kept, and how many; without `type`: in the experiment's own folder."""
    checkpoint_policy: Literal["best", "all", "none"] = "best"
    """Whether a validation is followed by a checkpoint: when it is the best so far, always, or never."""
    min_validation_period: Period = NEVER
    """Validate at least this often; 0: only when the searcher asks."""
    min_checkpoint_period: Period = NEVER
    """Checkpoint at least this often; 0: only by `checkpoint_policy`, and at the end."""
    perform_initial_validation: bool = False
    """Validate once before training."""
    preflight_validation: bool = True
    """Validate one batch before training and put everything back, so that mistakes cost seconds."""
    records_per_epoch: Count = 0
    """How many records an epoch has, where the data loader cannot tell."""
    scheduling_unit: Positive = 100
    """Batches between two reports of metrics."""
    max_restarts: Count = 5
    """How often a trial that failed is started again, from its newest checkpoint."""
    reproducibility: Reproducibility = Reproducibility.model_construct()
    """Seeds."""
    profiling: Profiling = Profiling.model_construct()
    """Measurements while a trial runs."""
    optimizations: Optimizations = Optimizations.model_construct()
    """How gradients are gathered and averaged."""
    log_policies: Annotated[Many[LogPolicy], AfterValidator(with_defaults)] = DEFAULT_POLICIES
    """What is done about lines of a trial's log."""
    retention_policy: RetentionPolicy = RetentionPolicy.model_construct()
    """How long a cluster keeps logs; here they stay for as long as the experiment."""
    integrations: Integrations | None = None
    """Services around a cluster; without meaning on one host."""
    preemption_timeout: Positive | None = None
    """Seconds that a trial has to checkpoint and leave before it is killed."""
    exit_timeout: Count = EXIT_TIMEOUT
    """Seconds for what a trial left running when it is done: threads, processes, late uploads."""
    debug: bool = False
    """Log more."""
    slurm: Slurm = Slurm.model_construct()
    """Options of Slurm; without meaning on one host."""
    pbs: Pbs = Pbs.model_construct()
    """Options of PBS; without meaning on one host."""
    security: Annotated[Anything | None, SECRET] = None
    """Of a cluster; without meaning on one host."""
    tensorboard_storage: Annotated[Anything | None, SECRET] = None
    """Of old versions; without meaning here."""
    data_layer: Annotated[Anything | None, SECRET] = None
    """Of old versions; without meaning here."""
    internal: Annotated[Anything | None, SECRET] = None
    """Of old versions; without meaning here."""

    def resolved(self) -> dict[str, object]:
        """The complete config as JSON can carry it; parsing it again gives an equal config."""
        return self.model_dump(mode="json")

    def masked(self) -> dict[str, object]:
        """`resolved()` for the screen: what is secret is hidden."""
        return mask(self.resolved(), type(self))
