from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._contract.errors import InvalidTrialError
from determined._trial.context import (
    Categorical,
    Constant,
    Double,
    Environment,
    HparamAccess,
    Integer,
    Log,
    NotConfiguredError,
    TrialContext,
    sampled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from determined._contract.run_info import RunInfo


class Context(HparamAccess):
    @classmethod
    def of_config(cls, config: Mapping[str, object], hparams: Mapping[str, object]) -> Context:
        return cls(hparams, config, None)


def context(hparams: dict[str, object] | None = None, *, slots: int = 1) -> HparamAccess:
    return HparamAccess(hparams, None, None, slots=slots)


def test_hyperparameters_are_given_by_name_and_as_a_copy() -> None:
    own: dict[str, object] = {"lr": 0.1, "width": None}
    found = context(own)
    found.get_hparams()["lr"] = 2
    assert (found.get_hparam("lr"), found.get_hparam("width"), found.get_hparams()) == (0.1, None, own)


@pytest.mark.parametrize(
    ("hparams", "available"), [({}, "none"), ({"width": 1, "lr": 2}, "lr, width")], ids=["none", "two"]
)
def test_an_unknown_hyperparameter_is_refused_with_the_known_ones(
    hparams: dict[str, object], available: str
) -> None:
    with pytest.raises(NotConfiguredError) as refused:
        context(hparams).get_hparam("depth")
    assert str(refused.value) == f"no hyperparameter 'depth'; available: {available}"
    assert refused.value.hint == "add depth to hyperparameters in the experiment config"


def test_what_is_not_configured_ends_the_trial_and_is_a_value_error_too() -> None:
    assert issubclass(NotConfiguredError, InvalidTrialError)
    assert issubclass(NotConfiguredError, ValueError)


@pytest.mark.parametrize(
    ("read", "cause", "hint"),
    [
        (HparamAccess.get_hparams, "there are no hyperparameters", "pass hparams= to pytorch.init"),
        (HparamAccess.get_global_batch_size, "there are no hyperparameters", "pass hparams= to pytorch.init"),
        (
            HparamAccess.get_experiment_config,
            "there is no experiment config",
            "pass exp_conf= to pytorch.init",
        ),
        (HparamAccess.get_data_config, "there is no experiment config", "pass exp_conf= to pytorch.init"),
        (HparamAccess.get_experiment_id, "there are no IDs outside an experiment", "submit the script"),
        (HparamAccess.get_trial_id, "there are no IDs outside an experiment", "submit the script"),
        (HparamAccess.get_trial_seed, "there are no IDs outside an experiment", "submit the script"),
    ],
)
def test_what_a_script_by_hand_lacks_is_named_with_a_hint(
    read: Callable[[HparamAccess], object], cause: str, hint: str
) -> None:
    with pytest.raises(NotConfiguredError) as refused:
        read(context())
    assert str(refused.value) == cause
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("size", "slots", "used", "per_slot"), [(1, 1, 1, 1), (64, 4, 64, 16), (67, 4, 64, 16), (4, 4, 4, 1)]
)
def test_the_batch_of_all_slots_is_a_multiple_of_them(
    caplog: pytest.LogCaptureFixture, size: int, slots: int, used: int, per_slot: int
) -> None:
    found = context({"global_batch_size": size}, slots=slots)
    assert (found.get_global_batch_size(), found.get_per_slot_batch_size(), found.batch_size) == (
        used,
        per_slot,
        used,
    )
    warned = [f"global_batch_size {size} is not a multiple of {slots} slots: using {used}"] * 3
    assert caplog.messages == (warned if used != size else [])


@pytest.mark.parametrize(
    ("hparams", "cause"),
    [
        ({}, "the trial reads its batch size, but global_batch_size is not set"),
        ({"global_batch_size": None}, "the trial reads its batch size, but global_batch_size is not set"),
        ({"global_batch_size": 0}, "the hyperparameter global_batch_size is 0"),
        ({"global_batch_size": True}, "the hyperparameter global_batch_size is True"),
        ({"global_batch_size": 8.0}, "the hyperparameter global_batch_size is 8.0"),
        ({"global_batch_size": "8"}, "the hyperparameter global_batch_size is '8'"),
    ],
    ids=repr,
)
def test_a_batch_size_is_an_integer_of_one_or_more(hparams: dict[str, object], cause: str) -> None:
    with pytest.raises(NotConfiguredError) as refused:
        context(hparams).get_global_batch_size()
    assert str(refused.value) == cause
    assert refused.value.hint.startswith("set hyperparameters.global_batch_size in the experiment config")


def test_a_batch_has_at_least_one_record_for_each_slot() -> None:
    with pytest.raises(NotConfiguredError) as refused:
        context({"global_batch_size": 3}, slots=4).get_per_slot_batch_size()
    assert str(refused.value) == "the hyperparameter global_batch_size is 3, but the trial has 4 slots"
    assert refused.value.hint == "set it to 4 or more"


@pytest.mark.parametrize("hparams", [None, {}, {"lr": 1}], ids=repr)
def test_a_batch_size_that_is_not_set_is_none(hparams: dict[str, object] | None) -> None:
    assert context(hparams).batch_size is None


def test_reading_the_batch_size_by_name_names_the_better_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "determined")
    found = context({"global_batch_size": 8, "lr": 1})
    assert (found.get_hparam("lr"), found.get_hparam("global_batch_size")) == (1, 8)
    assert caplog.messages == ["use context.get_per_slot_batch_size() to build data loaders"]


def test_in_a_run_ids_and_seed_are_those_of_the_trial(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(slots=2)
    config, hparams = {"name": "toy"}, {"lr": 1}
    found = HparamAccess(hparams, config, info, slots=2)
    assert (found.get_experiment_id(), found.get_trial_id(), found.get_trial_seed()) == (3, 7, 42)
    assert found.env == Environment(
        experiment_config=config,
        hparams=hparams,
        trial_seed=42,
        det_experiment_id=3,
        det_trial_id=7,
        use_gpu=True,
        on_cluster=True,
    )


def test_outside_a_run_the_environment_is_empty() -> None:
    assert context().env == Environment()


def test_a_run_on_the_cpu_uses_no_gpu(make_run: Callable[..., RunInfo]) -> None:
    env = HparamAccess({}, {}, make_run(slots=0)).env
    assert (env.use_gpu, env.on_cluster) == (False, True)


@pytest.mark.parametrize(
    ("config", "data"),
    [({}, {}), ({"data": None}, {}), ({"data": "x"}, {}), ({"data": {"url": "x"}}, {"url": "x"})],
    ids=repr,
)
def test_the_section_data_is_empty_unless_it_is_a_mapping(
    config: dict[str, object], data: dict[str, object]
) -> None:
    found = HparamAccess(None, config, None)
    assert (found.get_data_config(), found.get_experiment_config()) == (data, config)


def test_a_context_to_try_a_trial_by_hand_has_one_value_of_each_range() -> None:
    config = {"hyperparameters": {"lr": Constant(0.1), "width": Integer(3, 3)}, "data": {"url": "x"}}
    found = Context.from_config(config)
    assert type(found) is Context
    assert found.get_hparams() == {"lr": 0.1, "width": 3}
    assert found.get_experiment_config() == config


def test_a_context_of_no_framework_is_pytorchs() -> None:
    from determined.pytorch import PyTorchTrialContext

    found = TrialContext.from_config({"hyperparameters": {"lr": 1}})
    assert type(found) is PyTorchTrialContext
    assert found.get_hparams() == {"lr": 1}


@pytest.mark.parametrize(
    ("made", "spec"),
    [
        (Constant([1]), {"type": "const", "val": [1]}),
        (Integer(1, 2), {"type": "int", "minval": 1, "maxval": 2}),
        (Integer(1, 2, 0), {"type": "int", "minval": 1, "maxval": 2, "count": 0}),
        (Double(0.5, 2, count=3), {"type": "double", "minval": 0.5, "maxval": 2, "count": 3}),
        (Log(-4, -1), {"type": "log", "minval": -4, "maxval": -1, "base": 10.0}),
        (Log(1, 4, 2, 4), {"type": "log", "minval": 1, "maxval": 4, "base": 2, "count": 4}),
        (Categorical(("a", 1)), {"type": "categorical", "vals": ["a", 1]}),
    ],
)
def test_a_range_is_written_as_the_config_has_it(made: object, spec: dict[str, object]) -> None:
    assert made == spec


BOUNDS = st.tuples(st.integers(-50, 50), st.integers(-50, 50)).map(sorted)


@given(bounds=BOUNDS)
def test_what_is_sampled_lies_within_its_range(bounds: list[int]) -> None:
    low, high = bounds
    found: dict[str, Any] = sampled(
        {
            "int": Integer(low, high),
            "double": Double(low, high),
            "log": Log(low, high, 2.0),
            "inner": {"one": Categorical([low, high]), "fixed": low},
        }
    )
    assert isinstance(found["int"], int)
    assert low <= found["int"] <= high
    assert low <= found["double"] <= high
    assert low - 1e-9 <= math.log2(found["log"]) <= high + 1e-9
    assert found["inner"]["one"] in bounds
    assert found["inner"]["fixed"] == low


@pytest.mark.parametrize(
    ("given_ones", "found"),
    [
        (None, {}),
        ([1], {}),
        ({"lr": 0.1, "names": ["a"], 3: None}, {"lr": 0.1, "names": ["a"], "3": None}),
        ({"log": {"type": "log", "minval": 2, "maxval": 2}}, {"log": 100.0}),
        ({"optimizer": {"type": "adam", "lr": Constant(1)}}, {"optimizer": {"type": "adam", "lr": 1}}),
    ],
    ids=["none", "no mapping", "values", "base 10", "a type of its own"],
)
def test_what_is_no_range_stays_as_it_is(given_ones: object, found: dict[str, object]) -> None:
    assert sampled(given_ones) == found
