from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.api.client import Client
from detbuild.cli import arguments
from detbuild.errors import ConfigError
from detbuild.events import ignore
from tests.fakes import FakeEngine


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_ids_may_be_words_or_a_list_and_each_counts_once(numbers: list[int]) -> None:
    words = [str(number) for number in numbers]
    expected = tuple(dict.fromkeys(numbers))
    assert arguments.experiment_numbers(words) == expected
    assert arguments.experiment_numbers([",".join(words)]) == expected


@given(st.integers(0, 10**17), st.integers(0, 50))
def test_a_range_has_both_its_ends(first: int, more: int) -> None:
    found = arguments.experiment_numbers([f"{first}-{first + more}"])
    assert found == tuple(range(first, first + more + 1))


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        (["a"], "'a' is not an experiment ID; expected e.g. 3, 3,4 or 3-5"),
        (["1,,2"], "'' is not an experiment ID"),
        (["-1"], "'-1' is not an experiment ID"),
        (["1-"], "'1-' is not an experiment ID"),
        (["3-1"], "'3-1' is reversed; expected 1-3"),
        (["1-999999999999"], "'1-999999999999' names more than 100000 experiments"),
        (["9" * 5000], "is not an experiment ID"),
    ],
)
def test_what_names_no_experiments_is_refused(values: list[str], cause: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        arguments.experiment_numbers(values)
    assert cause in refused.value.message


@pytest.mark.parametrize(("text", "trial"), [("3/2", (3, 2)), ("3", (3, 1)), ("3/", (3, 1))])
def test_a_trial_is_named_by_its_experiment_and_its_number(text: str, trial: tuple[int, int]) -> None:
    context = click.Context(click.Command("x"))
    assert arguments.trial_reference(context, click.Argument(["trial"]), text) == trial


@pytest.mark.parametrize("text", ["", "a", "3/b", "3/2/1", "/2"])
def test_what_names_no_trial_is_refused(text: str) -> None:
    context = click.Context(click.Command("x"))
    with pytest.raises(click.BadParameter, match="is not a trial; expected EXPERIMENT/TRIAL"):
        arguments.trial_reference(context, click.Argument(["trial"]), text)


@given(st.lists(st.sampled_from([0, 1, 4, 6, 7, 130])))
def test_the_code_of_several_is_that_of_an_error_before_a_cancellation(codes: list[int]) -> None:
    found = arguments.worst(codes)
    assert (found == 0) == (not any(codes))
    assert not found or found == min(code for code in codes if code)


def test_ids_are_completed_newest_first_from_folder_names_alone(tmp_path: Path) -> None:
    client = Client(path=tmp_path / "home", environ={}, connect=FakeEngine, emit=ignore)
    context, param = click.Context(click.Command("x"), obj=client), click.Argument(["id"])
    assert arguments.complete_ids(context, param, "") == []
    for name in ("1", "2", "12", ".3", "x"):
        (tmp_path / "home" / "experiments" / name).mkdir(parents=True)
    assert arguments.complete_ids(context, param, "") == ["12", "2", "1"]
    assert arguments.complete_ids(context, param, "1") == ["12", "1"]


def test_a_config_that_is_missing_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "adaptive.yaml").write_text("")
    arguments.check_config_file(tmp_path / "adaptive.yaml")
    with pytest.raises(ConfigError, match="No such file") as missing:
        arguments.check_config_file(tmp_path / "adaptve.yaml")
    assert missing.value.hint == f"did you mean `{tmp_path / 'adaptive.yaml'}`?"
    with pytest.raises(ConfigError, match="No such file") as alone:
        arguments.check_config_file(tmp_path / "none" / "a.yaml")
    assert alone.value.hint == ""
    with pytest.raises(ConfigError, match="is a directory") as swapped:
        arguments.check_config_file(tmp_path)
    assert "`CONFIG DIR`" in swapped.value.hint
