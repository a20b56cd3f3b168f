from __future__ import annotations

from determined.experimental._handover import TrialGiven, expected, handover


def test_a_class_is_expected_within_the_block_only():
    assert not expected()
    with handover():
        assert expected()
        with handover():
            assert expected()
        assert expected()
    assert not expected()


def test_a_given_class_passes_handlers_of_errors():
    assert not issubclass(TrialGiven, Exception)
    assert TrialGiven(int).trial_class is int
