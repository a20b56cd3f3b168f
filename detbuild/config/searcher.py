"""Search methods; `name` selects the method and its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from detbuild.config.legacy_syntax import HAS_LENGTH, add_step_fields
from detbuild.config.section import (
    Clause,
    Count,
    Fraction,
    ListOf,
    OpenUnion,
    Positive,
    Section,
    TextPattern,
    TrainingLength,
    any_of,
    int_between,
    integral,
    matching_text,
    not_both,
    require,
    wrong,
)
from detbuild.config.yaml import LARGEST, show

Mode = Literal["conservative", "standard", "aggressive"]
_Divisor = Annotated[float, Field(gt=1)]
_WORD: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_TRIAL: Final = r"[1-9][0-9]*(?:/[1-9][0-9]*)?"
_A_TRIAL: Final = "a trial, e.g. 3/1 or 3"
_HOOK: Final = rf"{_WORD}(?:\.{_WORD})*:{_WORD}"
# Also a directory name, so it must not contain a path.
_CheckpointId = Annotated[str, TextPattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "a checkpoint ID")]


def _clauses(searcher: Clause) -> None:
    searcher["allOf"] = [not_both("source_trial_id", "source_checkpoint_uuid")]
    add_step_fields(searcher)


def _trial(value: object) -> object:
    number = integral(value)
    if type(number) is int and 1 <= number <= LARGEST:
        return number
    if isinstance(value, str) and re.fullmatch(_TRIAL, value):
        return value
    raise wrong(f"must be {_A_TRIAL}, not {show(value)}")


_TrialReference = Annotated[
    int | str,
    BeforeValidator(_trial),
    WithJsonSchema(any_of([int_between(1, LARGEST), matching_text(_TRIAL, _A_TRIAL)])),
]


class SearcherConfig(Section):
    """The fields of all search methods; each adds `name`, a literal with a default, and its own."""

    model_config = ConfigDict(json_schema_extra=_clauses)

    metric: (
        Annotated[str, Field(min_length=1)] | None
    )  # None only for `create(local=True)`, which compares no trials
    """Validation metric to compare trials by."""
    smaller_is_better: bool = True
    """Whether smaller values of the metric are better."""
    source_trial_id: _TrialReference | None = None
    """Start every trial from the newest checkpoint of this trial: `3/2` is trial 2 of experiment 3,
    and `3` is its first trial."""
    source_checkpoint_uuid: _CheckpointId | None = None
    """Start every trial from this checkpoint."""
    max_length: TrainingLength | None = None
    """Maximum length of training of a trial: `{batches: n}`, `{records: n}`, `{epochs: n}`, or a bare
    number of batches."""

    if TYPE_CHECKING:
        name: str

    @property
    def sign(self) -> int:
        """1 if smaller values of the metric are better, else -1."""
        return 1 if self.smaller_is_better else -1


class Single(SearcherConfig):
    name: Literal["single"] = "single"
    """One trial."""


class Random(SearcherConfig):
    name: Literal["random"] = "random"
    """Random search."""
    max_trials: Positive
    """Number of trials."""
    max_concurrent_trials: Count = 16
    """Maximum number of concurrent trials; 0: no limit."""


class Grid(SearcherConfig):
    name: Literal["grid"] = "grid"
    """Grid search: one trial per point; ranges need `count`."""
    max_concurrent_trials: Count = 16
    """Maximum number of concurrent trials; 0: no limit."""


def _asha_clauses(searcher: Clause) -> None:
    _clauses(searcher)
    by_time = ("max_time", "time_metric")
    if_either = {"if": any_of(map(require, by_time)), "then": require(*by_time), "else": HAS_LENGTH}
    searcher["allOf"].append(if_either)


class Asha(SearcherConfig):
    model_config = ConfigDict(json_schema_extra=_asha_clauses)

    max_trials: Positive
    """Number of trials."""
    divisor: _Divisor = 4.0
    """One trial in this many reaches the next rung."""
    max_concurrent_trials: Count = 16
    """Maximum number of concurrent trials; 0: as many as the first rung needs."""
    max_time: Positive | None = None
    """Maximum length of training in units of `time_metric`, instead of `max_length`."""
    time_metric: str | None = None
    """Validation metric that measures the progress of a trial, e.g. `batches`."""
    stop_once: bool = False
    """Stop trials early, instead of pausing them at a rung and promoting them later."""


class AsyncHalving(Asha):
    name: Literal["async_halving"] = "async_halving"
    """Asynchronous successive halving (ASHA)."""
    num_rungs: Positive
    """Number of rungs."""


class AdaptiveAsha(Asha):
    name: Literal["adaptive_asha"] = "adaptive_asha"
    """Several brackets of asynchronous successive halving; the recommended default."""
    mode: Mode = "standard"
    """How aggressively trials are stopped; determines the brackets."""
    max_rungs: Positive = 5
    """Maximum number of rungs in a bracket."""
    bracket_rungs: ListOf[Positive] = ()
    """Number of rungs in each bracket, instead of `mode`."""


def _synchronous_clauses(searcher: Clause) -> None:
    _clauses(searcher)
    searcher["allOf"].append(HAS_LENGTH)


class Synchronous(SearcherConfig):
    """A searcher of Determined 0.12, whose rungs are fractions of a length for every entrypoint."""

    model_config = ConfigDict(json_schema_extra=_synchronous_clauses)


class Budgeted(Synchronous):
    budget: TrainingLength
    """Total length of training of all trials."""


class SyncHalving(Budgeted):
    name: Literal["sync_halving"] = "sync_halving"
    """Synchronous successive halving of Determined 0.12."""
    num_rungs: Positive
    """Number of rungs."""
    divisor: _Divisor = 4.0
    """One trial in this many reaches the next rung."""
    train_stragglers: bool = True
    """Continue trials whose rung is already full; no effect here."""


class Adaptive(Budgeted):
    name: Literal["adaptive"] = "adaptive"
    """Several brackets of successive halving of Determined 0.12."""
    mode: Mode = "standard"
    """How aggressively trials are stopped; determines the brackets."""
    divisor: _Divisor = 4.0
    """One trial in this many reaches the next rung."""
    max_rungs: Positive = 5
    """Maximum number of rungs in a bracket."""
    bracket_rungs: ListOf[Positive] = ()
    """Number of rungs in each bracket, instead of `mode`."""
    train_stragglers: bool = True
    """Continue trials whose rung is already full; no effect here."""


class AdaptiveSimple(Synchronous):
    name: Literal["adaptive_simple"] = "adaptive_simple"
    """Several brackets of successive halving of Determined 0.12, by number of trials."""
    max_trials: Positive
    """Number of trials."""
    mode: Mode = "standard"
    """How aggressively trials are stopped; determines the brackets."""
    divisor: _Divisor = 4.0
    """One trial in this many reaches the next rung."""
    max_rungs: Positive = 5
    """Maximum number of rungs in a bracket."""


class Replace(Section):
    truncate_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Fraction of the worst trials that copies of the best replace."""


class Explore(Section):
    resample_probability: Fraction = 0.2
    """Probability to resample a hyperparameter."""
    perturb_factor: Fraction = 0.2
    """Relative change of a hyperparameter that is not resampled."""


class PopulationBased(SearcherConfig):
    name: Literal["pbt"] = "pbt"
    """Population based training: after each round, perturbed copies of the best replace the worst."""
    population_size: Positive
    """Number of trials per round."""
    num_rounds: Positive
    """Number of rounds."""
    length_per_round: TrainingLength
    """Length of training per round."""
    replace_function: Replace = Replace.model_construct()
    """How to choose the trials to replace."""
    explore_function: Explore = Explore.model_construct()
    """How to perturb the hyperparameters of copies."""


class Custom(SearcherConfig):
    name: Literal["custom"] = "custom"
    """A custom search method."""
    unit: Literal["batches", "records", "epochs"] | None = None
    """Unit of lengths."""
    hook: Annotated[str, TextPattern(_HOOK, "a class, e.g. search:Search")] | None = None
    """Class of the method: `module:Class` in the context directory."""
    options: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Arguments for the class."""
    max_trials: Positive | None = None
    """Maximum number of trials; absent: the class decides."""
    max_concurrent_trials: Count = 16
    """Maximum number of concurrent trials; 0: no limit."""
    stop_once: bool = False
    """Report every validation to the class, so that it can stop trials early."""


class Optuna(SearcherConfig):
    name: Literal["optuna"] = "optuna"
    """Trials from a sampler of Optuna."""
    max_trials: Positive
    """Number of trials."""
    max_concurrent_trials: Count = 16
    """Maximum number of concurrent trials; 0: no limit."""
    sampler: Literal["tpe", "cmaes", "gp"] = "tpe"
    """Sampler: TPE, CMA-ES or Gaussian processes."""
    startup_trials: Positive | None = None
    """Number of random trials at the start; absent: Optuna's default."""


# Methods whose length of training can come from fields other than max_length.
WITHOUT_MAX_LENGTH: Final = frozenset({"async_halving", "adaptive_asha", "pbt", "custom"})
METHODS: Final[dict[str, type[SearcherConfig]]] = {
    "single": Single,
    "random": Random,
    "grid": Grid,
    "async_halving": AsyncHalving,
    "adaptive_asha": AdaptiveAsha,
    "sync_halving": SyncHalving,
    "adaptive": Adaptive,
    "adaptive_simple": AdaptiveSimple,
    "pbt": PopulationBased,
    "custom": Custom,
    "optuna": Optuna,
}

SEARCHERS: Final = OpenUnion(SearcherConfig, "name", METHODS, group="detbuild.searchers", call="search")
Searcher = Annotated[SearcherConfig, SEARCHERS]
