from __future__ import annotations

import pytest

from detbuild.config.hyperparameters import leaves
from detbuild.search.leaves import assembled, value_at
from tests.unit.search.searches import config_of

SPACE = {"b": 1, "a": {"z": 2, "y": {"x": 3}, "none": {}}}


def test_leaves_come_in_the_order_of_their_names_and_make_the_whole_again() -> None:
    hyperparameters = config_of("single", hyperparameters=SPACE).hyperparameters
    found = dict(leaves(hyperparameters))
    assert [*found] == [("a", "y", "x"), ("a", "z"), ("b",)]
    values = {path: "/".join(path) for path in found}
    whole = assembled(hyperparameters, values)
    assert whole == {"a": {"none": {}, "y": {"x": "a/y/x"}, "z": "a/z"}, "b": "b"}
    assert {path: value_at(whole, path) for path in found} == values


@pytest.mark.parametrize("path", [("c",), ("b", "x"), ("a", "y", "w")])
def test_what_is_not_there_is_a_key_error(path: tuple[str, ...]) -> None:
    with pytest.raises(KeyError):
        value_at(SPACE, path)
