"""How hyperparameters are searched; `name` chooses the method and with it the keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, Tag, model_validator

from detbuild.config.fields import Count, Fraction, Many, Positive, matching
from detbuild.config.lengths import TrainingLength
from detbuild.config.problems import show
from detbuild.config.section import TAG, Section, chosen_by, wrong

Mode = Literal["conservative", "standard", "aggressive"]
Divisor = Annotated[float, Field(gt=1)]
_HOOK: Final = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
# Names a directory of checkpoints, so it may not lead out of one.
CheckpointId = Annotated[str, matching(r"[A-Za-z0-9][\w.-]{0,127}", "the id of a checkpoint")]


def _trial(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", value, re.ASCII):
        return value
    raise wrong(f"must be a trial, such as 3/1 or 3, not {show(value)}")


TrialReference = Annotated[
    int | str,  # `3/2`: trial 2 of experiment 3; `3`: its first trial
    BeforeValidator(_trial),
]


class _Searcher(Section):
    metric: (
        Annotated[str, Field(min_length=1)] | None
    )  # None only where `create` trains locally: then nothing is compared
    smaller_is_better: bool = True
    source_trial_id: TrialReference | None = None
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

    @model_validator(mode="after")
    def _a_top_rung(self) -> _Asha:
        by_time = {self.max_time is not None, self.time_metric is not None}
        if len(by_time) > 1 or (self.max_length is None and by_time == {False}):
            mend = "add `max_length: {batches: 1000}`, or `max_time: 1000` and `time_metric: batches`"
            raise wrong("needs max_length, or max_time and time_metric together", mend=mend, later=True)
        return self


class AsyncHalving(_Asha):
    name: Literal["async_halving"] = "async_halving"
    num_rungs: Positive


class AdaptiveAsha(_Asha):
    name: Literal["adaptive_asha"] = "adaptive_asha"
    mode: Mode = "standard"
    max_rungs: Positive = 5
    bracket_rungs: Many[Positive] = ()


class _Synchronous(_Searcher):
    """Of Determined 0.12: its rungs are parts of a length, whatever the entrypoint is."""

    @model_validator(mode="after")
    def _a_length(self) -> _Synchronous:
        if self.max_length is None:
            raise wrong("needs max_length", mend="add `max_length: {batches: 1000}`", later=True)
        return self


class _Budgeted(_Synchronous):
    budget: TrainingLength

    @model_validator(mode="after")
    def _in_the_unit_of_the_length(self) -> _Budgeted:
        if self.max_length is not None and self.budget.unit != self.max_length.unit:
            what = f"is in {self.budget.unit} and max_length in {self.max_length.unit}"
            raise wrong(what, at=("budget",), mend="give both in the same unit", later=True)
        return self


class SyncHalving(_Budgeted):
    name: Literal["sync_halving"] = "sync_halving"
    num_rungs: Positive
    divisor: Divisor = 4.0
    train_stragglers: bool = True


class Adaptive(_Budgeted):
    name: Literal["adaptive"] = "adaptive"
    mode: Mode = "standard"
    divisor: Divisor = 4.0
    max_rungs: Positive = 5
    bracket_rungs: Many[Positive] = ()
    train_stragglers: bool = True

    @model_validator(mode="after")
    def _more_than_one_trial(self) -> Adaptive:
        if self.max_length is not None and self.budget.count <= self.max_length.count:
            what = f"must be above max_length, {self.max_length.count}, not {self.budget.count}"
            raise wrong(what, at=("budget",), mend="it is shared by all trials", later=True)
        return self


class AdaptiveSimple(_Synchronous):
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
    hook: Annotated[str, matching(_HOOK, "a class, such as search:Search")] | None = None
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
