from detbuild.search.preview import simulate
from detbuild.testing.searcher import SearchMethodContract


class TestMedian(SearchMethodContract):
    searcher = {"name": "median", "max_trials": 8, "max_length": {"batches": 16}}

    def test_the_worse_half_stops_early(self):
        trained = simulate(self.search(), lambda create, _length: create.trial_id).trained
        assert trained[1] == [4, 8, 12, 16]
        assert trained[2] == [4]
