"""Our own search methods keep the contract, and one that breaks it is found."""

from __future__ import annotations

import pytest

from detbuild.search.base import Search
from detbuild.testing.searcher import SearchMethodContract

LENGTH = {"max_length": {"batches": 27}}
ASHA = {**LENGTH, "max_trials": 20, "divisor": 3}


class TestSingle(SearchMethodContract):
    searcher = {"name": "single", **LENGTH}


class TestRandom(SearchMethodContract):
    searcher = {"name": "random", "max_trials": 12, "max_concurrent_trials": 3, **LENGTH}


class TestGrid(SearchMethodContract):
    searcher = {"name": "grid", "max_concurrent_trials": 4, **LENGTH}


class TestPromotion(SearchMethodContract):
    searcher = {"name": "async_halving", "num_rungs": 3, "max_concurrent_trials": 6, **ASHA}


class TestStopping(SearchMethodContract):
    searcher = {"name": "async_halving", "num_rungs": 3, "stop_once": True, **ASHA}


class TestAdaptivePromotion(SearchMethodContract):
    searcher = {"name": "adaptive_asha", **ASHA}


class TestAdaptiveStopping(SearchMethodContract):
    searcher = {"name": "adaptive_asha", "stop_once": True, **ASHA}


class TestSynchronous(SearchMethodContract):
    searcher = {"name": "sync_halving", "num_rungs": 3, "budget": {"batches": 200}, **LENGTH}


class TestAdaptive(SearchMethodContract):
    searcher = {"name": "adaptive", "budget": {"batches": 400}, "divisor": 3, **LENGTH}


class TestSimple(SearchMethodContract):
    searcher = {"name": "adaptive_simple", "max_trials": 14, "divisor": 3, **LENGTH}


class TestPopulation(SearchMethodContract):
    searcher = {"name": "pbt", "population_size": 5, "num_rounds": 4, "length_per_round": {"batches": 3}}


class TestOptuna(SearchMethodContract):
    searcher = {"name": "optuna", "max_trials": 8, "max_concurrent_trials": 2, "startup_trials": 2, **LENGTH}

    @pytest.fixture(autouse=True)
    def _needs_optuna(self) -> None:
        pytest.importorskip("optuna")


class Forgetful(SearchMethodContract):
    """Each search of it has other seeds, as one that reads a clock."""

    searcher = {"name": "random", "max_trials": 3, **LENGTH}
    made = 0

    def search(self, seed: int = 0) -> Search:
        Forgetful.made += 1
        found = super().search(seed + Forgetful.made)
        assert isinstance(found, Search)
        return found


def test_a_search_that_decides_by_something_else_than_its_events_is_found() -> None:
    with pytest.raises(AssertionError):
        Forgetful().test_equal_events_give_equal_actions()
    with pytest.raises(AssertionError):
        Forgetful().test_a_seed_gives_the_same_trials_again_and_another_seed_others()
