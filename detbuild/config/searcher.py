"""How hyperparameters are searched; `name` chooses the method and with it the keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, Tag, WithJsonSchema

from detbuild.config.clauses import Clause, any_of, counted, given, not_both, text
from detbuild.config.era import HAS_LENGTH, with_steps
from detbuild.config.fields import Count, Fraction, Many, Matching, Positive, integral
from detbuild.config.lengths import TrainingLength
from detbuild.config.problems import show
from detbuild.config.section import TAG, Section, chosen_by, wrong
from detbuild.config.values import LARGEST

Mode = Literal["conservative", "standard", "aggressive"]
Divisor = Annotated[float, Field(gt=1)]
_WORD: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_TRIAL: Final = r"[1-9][0-9]*(?:/[1-9][0-9]*)?"
_A_TRIAL: Final = "a trial, such as 3/1 or 3"
_HOOK: Final = rf"{_WORD}(?:\.{_WORD})*:{_WORD}"
# Names a directory of checkpoints, so it may not lead out of one.
CheckpointId = Annotated[str, Matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "the id of a checkpoint")]


def _clauses(searcher: Clause) -> None:
    searcher["allOf"] = [not_both("source_trial_id", "source_checkpoint_uuid")]
    with_steps(searcher)


def _trial(value: object) -> object:
    number = integral(value)
    if type(number) is int and 1 <= number <= LARGEST:
        return number
    if isinstance(value, str) and re.fullmatch(_TRIAL, value):
        return value
    raise wrong(f"must be {_A_TRIAL}, not {show(value)}")


TrialReference = Annotated[
    int | str,
    BeforeValidator(_trial),
    WithJsonSchema(any_of([counted(1, LARGEST), text(_TRIAL, _A_TRIAL)])),
]


class _Searcher(Section):
    model_config = ConfigDict(json_schema_extra=_clauses)

    metric: (
        Annotated[str, Field(min_length=1)] | None
    )  # None only where `create` trains locally: then nothing is compared
    """The validation metric by which trials are compared."""
    smaller_is_better: bool = True
    """Whether a smaller value of it is better."""
    source_trial_id: TrialReference | None = None
    """Every trial begins with the weights of this trial's newest checkpoint: `3/2` is trial 2 of
    experiment 3, and `3` the first trial of experiment 3."""
    source_checkpoint_uuid: CheckpointId | None = None
    """Every trial begins with the weights of this checkpoint."""
    max_length: TrainingLength | None = None
    """How long a trial is trained at most: `{batches: n}`, `{records: n}`, `{epochs: n}`, or a bare
    number of batches."""


class Single(_Searcher):
    name: Literal["single"] = "single"
    """One trial."""


class Random(_Searcher):
    name: Literal["random"] = "random"
    """Trials drawn at random."""
    max_trials: Positive
    """How many."""
    max_concurrent_trials: Count = 16
    """How many at once; 0: no limit."""


class Grid(_Searcher):
    name: Literal["grid"] = "grid"
    """A trial for each point of the grid; ranges need `count`."""
    max_concurrent_trials: Count = 16
    """How many at once; 0: no limit."""


def _asha_clauses(searcher: Clause) -> None:
    _clauses(searcher)
    by_time = ("max_time", "time_metric")
    if_either = {"if": any_of(map(given, by_time)), "then": given(*by_time), "else": HAS_LENGTH}
    searcher["allOf"].append(if_either)


class Asha(_Searcher):
    model_config = ConfigDict(json_schema_extra=_asha_clauses)

    max_trials: Positive
    """How many trials."""
    divisor: Divisor = 4.0
    """One in so many reaches the next rung."""
    max_concurrent_trials: Count = 16
    """How many at once; 0: as many as the first rung asks for."""
    max_time: Positive | None = None
    """In place of max_length: how far a trial is trained at most, in units of `time_metric`."""
    time_metric: str | None = None
    """The validation metric that tells how far a trial is, such as `batches`."""
    stop_once: bool = False
    """Stop trials early rather than pause them at a rung and promote them later."""


class AsyncHalving(Asha):
    name: Literal["async_halving"] = "async_halving"
    """Successive halving that waits for nobody."""
    num_rungs: Positive
    """How many rungs."""


class AdaptiveAsha(Asha):
    name: Literal["adaptive_asha"] = "adaptive_asha"
    """Several asynchronous halvings, from the bold to the careful: a good first choice."""
    mode: Mode = "standard"
    """How many of them, and how bold."""
    max_rungs: Positive = 5
    """How many rungs the deepest has at most."""
    bracket_rungs: Many[Positive] = ()
    """The rungs of each, in place of `mode`."""


def _synchronous_clauses(searcher: Clause) -> None:
    _clauses(searcher)
    searcher["allOf"].append(HAS_LENGTH)


class Synchronous(_Searcher):
    """Of Determined 0.12: its rungs are parts of a length, whatever the entrypoint is."""

    model_config = ConfigDict(json_schema_extra=_synchronous_clauses)


class Budgeted(Synchronous):
    budget: TrainingLength
    """The training of all trials together."""


class SyncHalving(Budgeted):
    name: Literal["sync_halving"] = "sync_halving"
    """Successive halving, rung by rung, of Determined 0.12."""
    num_rungs: Positive
    """How many rungs."""
    divisor: Divisor = 4.0
    """One in so many reaches the next rung."""
    train_stragglers: bool = True
    """Train on trials whose rung is full already."""


class Adaptive(Budgeted):
    name: Literal["adaptive"] = "adaptive"
    """Several successive halvings, of Determined 0.12."""
    mode: Mode = "standard"
    """How many of them, and how bold."""
    divisor: Divisor = 4.0
    """One in so many reaches the next rung."""
    max_rungs: Positive = 5
    """How many rungs the deepest has at most."""
    bracket_rungs: Many[Positive] = ()
    """The rungs of each, in place of `mode`."""
    train_stragglers: bool = True
    """Train on trials whose rung is full already."""


class AdaptiveSimple(Synchronous):
    name: Literal["adaptive_simple"] = "adaptive_simple"
    """Several successive halvings, by number of trials, of Determined 0.12."""
    max_trials: Positive
    """How many trials."""
    mode: Mode = "standard"
    """How many of them, and how bold."""
    divisor: Divisor = 4.0
    """One in so many reaches the next rung."""
    max_rungs: Positive = 5
    """How many rungs the deepest has at most."""


class Replace(Section):
    truncate_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """The share of the worst that give way to copies of the best."""


class Explore(Section):
    resample_probability: Fraction = 0.2
    """How likely a hyperparameter is drawn anew."""
    perturb_factor: Fraction = 0.2
    """By how much it is changed otherwise."""


class PopulationBased(_Searcher):
    name: Literal["pbt"] = "pbt"
    """Population based training: after each round the worst continue from the best, slightly changed."""
    population_size: Positive
    """How many trials at a time."""
    num_rounds: Positive
    """How many rounds."""
    length_per_round: TrainingLength
    """How long a round trains."""
    replace_function: Replace = Replace.model_construct()
    """Who gives way."""
    explore_function: Explore = Explore.model_construct()
    """How the hyperparameters of a copy change."""


class Custom(_Searcher):
    name: Literal["custom"] = "custom"
    """A class of one's own decides."""
    unit: Literal["batches", "records", "epochs"] | None = None
    """What lengths are counted in."""
    hook: Annotated[str, Matching(_HOOK, "a class, such as search:Search")] | None = None
    """The class, `module:Class` of the context directory."""
    options: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Handed to the class."""
    max_trials: Positive | None = None
    """How many trials; absent: until the class has no more."""
    max_concurrent_trials: Count = 16
    """How many at once; 0: no limit."""
    stop_once: bool = False
    """Whether trials are stopped early rather than promoted."""


class Optuna(_Searcher):
    name: Literal["optuna"] = "optuna"
    """A sampler of Optuna draws the trials."""
    max_trials: Positive
    """How many."""
    max_concurrent_trials: Count = 16
    """How many at once; 0: no limit."""
    sampler: Literal["tpe", "cmaes", "gp"] = "tpe"
    """Which one: TPE, CMA-ES or Gaussian processes."""
    startup_trials: Positive | None = None
    """Trials drawn at random first; absent: Optuna's choice."""


# Those that say by other fields than max_length how long a trial is trained.
BY_OTHER_MEANS: Final = frozenset({"async_halving", "adaptive_asha", "pbt", "custom"})
METHODS: Final[dict[str, type[_Searcher]]] = {
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


Searcher = Annotated[
    Annotated[Single, Tag(TAG + "Single")]
    | Annotated[Random, Tag(TAG + "Random")]
    | Annotated[Grid, Tag(TAG + "Grid")]
    | Annotated[AsyncHalving, Tag(TAG + "AsyncHalving")]
    | Annotated[AdaptiveAsha, Tag(TAG + "AdaptiveAsha")]
    | Annotated[SyncHalving, Tag(TAG + "SyncHalving")]
    | Annotated[Adaptive, Tag(TAG + "Adaptive")]
    | Annotated[AdaptiveSimple, Tag(TAG + "AdaptiveSimple")]
    | Annotated[PopulationBased, Tag(TAG + "PopulationBased")]
    | Annotated[Custom, Tag(TAG + "Custom")]
    | Annotated[Optuna, Tag(TAG + "Optuna")],
    chosen_by("name", METHODS),
]
