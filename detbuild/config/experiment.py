"""The experiment config as one frozen value, with the names and defaults of Determined's.

Here are also its entrypoint and its smaller sections; those for clusters are checked and kept, but have no
effect on a single host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from detbuild.config.environment import (
    DEFAULT_POLICIES,
    BindMount,
    Environment,
    LogPolicy,
    Resources,
    RetentionPolicy,
    distinct,
    with_defaults,
)
from detbuild.config.hyperparameters import Hyperparameter
from detbuild.config.legacy_syntax import HAS_LENGTH, add_legacy_fields
from detbuild.config.searcher import METHODS, WITHOUT_MAX_LENGTH, Searcher
from detbuild.config.secrets import SECRET, UNDER_SECRETS, mask
from detbuild.config.section import (
    NEVER,
    Clause,
    Count,
    Integer,
    IntRange,
    ListOf,
    Period,
    Positive,
    Section,
    anchored,
    any_of,
    integral,
    on_field,
    require,
    when,
    wrong,
)
from detbuild.config.storage import ExperimentDirectory, Storage
from detbuild.config.yaml import show
from determined._contract.run_info import EXIT_TIMEOUT

_Kind = Literal["trial", "shell", "argv", "given"]
# Spelled out because these patterns also go into the JSON Schema, where `\w` and `\s` differ from Python's.
# Beyond ASCII, any character outside the blocks of punctuation and symbols counts as a letter.
_BLANKS: Final = " \t\r\n"
_BEYOND: Final = r"[^\x00-\xbf\xd7\xf7\u2000-\u2bff\u3000-\u303f\ufe00-\ufe6f\uff00-\uff20]"
_NAME: Final = rf"(?:[A-Za-z_]|{_BEYOND})(?:[A-Za-z0-9_]|{_BEYOND})*"
_OBJECT: Final = rf"{_NAME}(?:\.{_NAME})*"
_DIRECTORY: Final = rf"(?:[A-Za-z0-9_-]|{_BEYOND})+"  # may hold dashes
_MODULE: Final = rf"{_DIRECTORY}(?:\.{_DIRECTORY})*"
# An empty module means the context directory itself.
# Compiled when they are first used: most entrypoints match the first one, or are lists.
_TRIAL: Final = rf"(?![^:]*\.py:)(?P<module>(?:{_MODULE})?):(?P<object>{_OBJECT})"
_SPACED: Final = rf"(?P<module>(?:[A-Za-z0-9_.-]|{_BEYOND})*)[ \t\r\n]*:[ \t\r\n]*(?P<object>{_OBJECT})"
_ONE_WORD: Final = r"""(?P<module>[^ \t\r\n:=$'"]*):(?P<object>[^ \t\r\n=$'"]*)"""
_SCRIPT: Final = rf"(?:[A-Za-z0-9_.-]|{_BEYOND})+\.py"
_DOTTED_CLASS: Final = rf"(?P<module>{_MODULE})\.(?P<object>[A-Z](?:[A-Za-z0-9_]|{_BEYOND})*)"
_MISTAKES: Final = (_SCRIPT, _SPACED, _ONE_WORD, _DOTTED_CLASS)
_EXAMPLE: Final = "write `module:Class`, e.g. `model_def:MyTrial`, or a command"
_LIST: Final[Clause] = {
    "type": "array",
    "items": {"type": "string"},
    "prefixItems": [{"type": "string", "minLength": 1}],
    "minItems": 1,
}
MAX_SEED = (1 << 32) - 1  # NumPy's legacy generator accepts 32 bits
_Anything = Mapping[str, JsonValue]
PROJECT_FIELDS: Final = ("workspace", "project")


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """What a trial runs. `given` means that the caller of `create` passes the class."""

    kind: _Kind
    value: str | tuple[str, ...]

    @property
    def module(self) -> str:
        """The dotted module of a trial class; may be empty or contain dashes."""
        return str(self.value).partition(":")[0] if self.kind == "trial" else ""

    @property
    def trial_class(self) -> str:
        """The trial class within the module, `Outer.Inner` if nested."""
        return str(self.value).partition(":")[2] if self.kind == "trial" else ""


GIVEN: Final = Entrypoint("given", "")


def parse_entrypoint(value: object) -> Entrypoint:
    """Read the config's `entrypoint`.

    Raises:
        PydanticCustomError: it has none of the three forms, or looks like a misspelt `module:Class`.
    """
    if value is None:
        return GIVEN
    if isinstance(value, Entrypoint):
        return value
    if isinstance(value, list):
        return _argv(value)
    if not isinstance(value, str):
        raise wrong(f"must be text or a list of text, not {show(value)}", hint=_EXAMPLE)
    text = value.strip(_BLANKS)
    if not text:
        raise wrong("is empty", hint=_EXAMPLE)
    if re.fullmatch(_TRIAL, text):
        return Entrypoint("trial", text)
    if hint := _misspelling_hint(text):
        raise wrong(f"{text[:40]!r} is not of the form `module:Class`", hint=hint)
    return Entrypoint("shell", value)


def _argv(items: list[object]) -> Entrypoint:
    if not items:
        raise wrong("is empty", hint=_EXAMPLE)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise wrong(f"must be text, not {show(item)}", at=(index,), hint="put it in quotes")
    if not items[0]:
        raise wrong("is empty", at=(0,), hint="name the program to run first")
    return Entrypoint("argv", tuple(map(str, items)))


def _misspelling_hint(text: str) -> str:
    """Return the hint for a misspelt `module:Class`; "" for a command."""
    match = next(filter(None, (re.fullmatch(pattern, text) for pattern in _MISTAKES)), None)
    if match is None:
        return ""
    if match.re.pattern == _SCRIPT:
        return f"write `python3 {text}` to run it as a script"
    module = re.sub(r"\.py$", "", match["module"]).strip("./").replace("/", ".")
    name = re.sub(r"\(.*\)$", "", match["object"].strip(":")) or "MyTrial"
    meant = f"{module}:{name}"
    if not re.fullmatch(_TRIAL, meant):
        meant = "model_def:MyTrial"
    return f"write `{meant}`, or a command as a list"


def _written(entrypoint: Entrypoint) -> str | list[str] | None:
    if entrypoint.kind == "given":
        return None
    return entrypoint.value if isinstance(entrypoint.value, str) else list(entrypoint.value)


def _among_blanks(*patterns: str) -> Clause:
    inside = "|".join(patterns)
    return {"pattern": anchored(rf"[ \t\r\n]*(?:{inside})[ \t\r\n]*")}


_IS_TRIAL: Final[Clause] = {"type": "string", **_among_blanks(_TRIAL)}
_TEXT: Final[Clause] = {
    "type": "string",
    "pattern": r"[^ \t\r\n]",
    "patternErrorMessage": "is empty",
    "anyOf": [_IS_TRIAL, {"not": _among_blanks(*_MISTAKES)}],
}
_ConfigEntrypoint = Annotated[
    InstanceOf[Entrypoint],
    BeforeValidator(parse_entrypoint),
    PlainSerializer(_written),
    WithJsonSchema(any_of([_TEXT, _LIST])),
]


class Reproducibility(Section):
    experiment_seed: Annotated[int, IntRange(0, MAX_SEED)] | None = None
    """Seed for sampling all trials; absent: the time of submission in seconds."""


class Profiling(Section):
    enabled: bool = False
    """Whether to profile."""
    begin_on_batch: Count = 0
    """First batch to profile."""
    end_after_batch: Count | None = None
    """Last batch to profile."""
    sync_timings: bool = True
    """Synchronize with the GPU, so that each step gets its own time."""

    @model_validator(mode="after")
    def _ordered(self) -> Profiling:
        if self.end_after_batch is not None and self.end_after_batch < self.begin_on_batch:
            what = f"must be at least begin_on_batch, {self.begin_on_batch}, not {self.end_after_batch}"
            raise wrong(what, at=("end_after_batch",), later=True)
        return self


class Optimizations(Section):
    aggregation_frequency: Positive = 1
    """Batches to accumulate gradients over before an optimizer step."""
    average_aggregated_gradients: bool = True
    """Average accumulated gradients instead of summing them."""
    average_training_metrics: bool = True
    """Average training metrics over all slots of the trial."""
    gradient_compression: bool = False
    """Option of Horovod; no effect."""
    grad_updates_size_file: str | None = None
    """Option of Horovod; no effect."""
    mixed_precision: Literal["O0", "O1", "O2", "O3"] = "O0"
    """Level of NVIDIA Apex; O0 disables mixed precision."""
    tensor_fusion_threshold: Count = 64
    """Option of Horovod, in MB; no effect."""
    tensor_fusion_cycle_time: Count = 1
    """Option of Horovod, in ms; no effect."""
    auto_tune_tensor_fusion: bool = False
    """Option of Horovod; no effect."""


class Slurm(Section):
    slots_per_node: Positive | None = None
    """GPUs per node."""
    gpu_type: str | None = None
    """GPU type."""
    sbatch_args: Annotated[ListOf[str], SECRET] = ()
    """Arguments of sbatch."""


class Pbs(Section):
    slots_per_node: Positive | None = None
    """GPUs per node."""
    pbsbatch_args: Annotated[ListOf[str], SECRET] = ()
    """Arguments of qsub."""


class Webhooks(Section):
    webhook_id: ListOf[Integer] = ()
    """IDs of webhooks."""
    webhook_name: ListOf[str] = ()
    """Names of webhooks."""
    exclude: bool = False
    """Trigger no webhooks."""


class Integrations(Section):
    pachyderm: Annotated[Mapping[str, JsonValue], SECRET] = Field(default_factory=dict)
    """Provenance of the data."""
    webhooks: Webhooks | None = None
    """Webhooks to trigger."""


def _version(value: object) -> object:
    if isinstance(value, bool):  # False == 0 in Python
        raise wrong(f"must be 0, not {show(value)}")
    return integral(value)


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _clauses(config: Clause) -> None:
    workspace, project = (
        {**require(name), **on_field(name, {"minLength": 1, "type": "string"})} for name in PROJECT_FIELDS
    )
    trial_class = on_field("entrypoint", _IS_TRIAL)
    by_length = on_field(
        "searcher",
        {"required": ["name"], **on_field("name", {"enum": sorted(METHODS.keys() - WITHOUT_MAX_LENGTH)})},
    )
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
    data: Annotated[_Anything, UNDER_SECRETS] = Field(default_factory=dict, repr=False)
    """Arbitrary values for the training code; those under `secrets` are never shown."""
    entrypoint: _ConfigEntrypoint
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
    security: Annotated[_Anything | None, SECRET] = None
    """Security settings of a cluster; no effect on a single host."""
    tensorboard_storage: Annotated[_Anything | None, SECRET] = None
    """Field of old versions; no effect."""
    data_layer: Annotated[_Anything | None, SECRET] = None
    """Field of old versions; no effect."""
    internal: Annotated[_Anything | None, SECRET] = None
    """Field of old versions; no effect."""

    def resolved(self) -> dict[str, object]:
        """Return the complete config as JSON values, which parse to an equal config."""
        return self.model_dump(mode="json")

    def masked(self) -> dict[str, object]:
        """Return `resolved()` with secrets masked."""
        return mask(self.resolved(), type(self))
