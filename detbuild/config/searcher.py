"""How hyperparameters are searched; `name` chooses the method and with it the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, Tag, model_validator

from detbuild.config.clauses import Clause, not_both
from detbuild.config.era import with_steps
from detbuild.config.fields import Count, Fraction, Many, Matching, Positive
from detbuild.config.lengths import TrainingLength
from detbuild.config.section import TAG, Section, chosen_by, wrong

Mode = Literal["conservative", "standard", "aggressive"]
Divisor = Annotated[float, Field(gt=1)]
_WORD: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_HOOK: Final = rf"{_WORD}(?:\.{_WORD})*:{_WORD}"
# Names a directory of checkpoints, so it may not lead out of one.
CheckpointId = Annotated[str, Matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "the id of a checkpoint")]


def _clauses(searcher: Clause) -> None:
    searcher["allOf"] = [not_both("source_trial_id", "source_checkpoint_uuid")]
    with_steps(searcher)


class _Searcher(Section):
    model_config = ConfigDict(json_schema_extra=_clauses)

    metric: (
        Annotated[str, Field(min_length=1)] | None
    )  # None only where `create` trains locally: then nothing is compared
    smaller_is_better: bool = True
    source_trial_id: Positive | None = None
    source_checkpoint_uuid: CheckpointId | None = None
    max_length: TrainingLength | None = None

    @model_validator(mode="after")
    def _one_source(self) -> _Searcher:
        if self.source_trial_id is not None and self.source_checkpoint_uuid is not None:
            what = "goes not together with source_trial_id"
            raise wrong(what, at=("source_checkpoint_uuid",), mend="keep one of the two")
        return self


class Single(_Searcher):
    name: Literal["single"] = "single"


class Random(_Searcher):
    name: Literal["random"] = "random"
    max_trials: Positive
    max_concurrent_trials: Count = 16  # 0: no limit


class Grid(_Searcher):
    name: Literal["grid"] = "grid"
    max_concurrent_trials: Count = 16


class _Asha(_Searcher):
    max_trials: Positive
    divisor: Divisor = 4.0
    max_concurrent_trials: Count = 16
    max_time: Positive | None = None
    time_metric: str | None = None
    stop_once: bool = False


class AsyncHalving(_Asha):
    name: Literal["async_halving"] = "async_halving"
    num_rungs: Positive


class AdaptiveAsha(_Asha):
    name: Literal["adaptive_asha"] = "adaptive_asha"
    mode: Mode = "standard"
    max_rungs: Positive = 5
    bracket_rungs: Many[Positive] = ()


class SyncHalving(_Searcher):
    name: Literal["sync_halving"] = "sync_halving"
    num_rungs: Positive
    budget: TrainingLength
    divisor: Divisor = 4.0
    train_stragglers: bool = True


class Adaptive(_Searcher):
    name: Literal["adaptive"] = "adaptive"
    budget: TrainingLength
    mode: Mode = "standard"
    divisor: Divisor = 4.0
    max_rungs: Positive = 5
    bracket_rungs: Many[Positive] = ()
    train_stragglers: bool = True


class AdaptiveSimple(_Searcher):
    name: Literal["adaptive_simple"] = "adaptive_simple"
    max_trials: Positive
    mode: Mode = "standard"
    divisor: Divisor = 4.0
    max_rungs: Positive = 5


class Replace(Section):
    truncate_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.2


class Explore(Section):
    resample_probability: Fraction = 0.2
    perturb_factor: Fraction = 0.2


class PopulationBased(_Searcher):
    name: Literal["pbt"] = "pbt"
    population_size: Positive
    num_rounds: Positive
    length_per_round: TrainingLength
    replace_function: Replace = Replace.model_construct()
    explore_function: Explore = Explore.model_construct()


class Custom(_Searcher):
    name: Literal["custom"] = "custom"
    unit: Literal["batches", "records", "epochs"] | None = None
    hook: Annotated[str, Matching(_HOOK, "a class, such as search:Search")] | None = None
    options: Mapping[str, JsonValue] = Field(default_factory=dict)  # handed to the hook
    max_trials: Positive | None = None  # None: until the hook has no more
    max_concurrent_trials: Count = 16
    stop_once: bool = False


class Optuna(_Searcher):
    name: Literal["optuna"] = "optuna"
    max_trials: Positive
    max_concurrent_trials: Count = 16
    sampler: Literal["tpe", "cmaes", "gp"] = "tpe"
    startup_trials: Positive | None = None  # drawn at random first; None: Optuna's choice


_METHODS: Final[dict[str, type[_Searcher]]] = {
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
    chosen_by("name", _METHODS),
]
