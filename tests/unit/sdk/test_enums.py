"""States under Determined's names."""

from __future__ import annotations

from determined.experimental.client import (
    CheckpointState,
    ExperimentState,
    TrialState,
)


def test_states_of_ours_have_the_nearest_name_of_determineds():
    assert ExperimentState("STATE_STOPPING_PAUSED") is ExperimentState.PAUSED
    assert TrialState("STATE_WAITING") is TrialState.ACTIVE
    assert TrialState("STATE_ODD") is TrialState.UNSPECIFIED


STATES = (
    "PAUSED QUEUED PULLING STARTING RUNNING ACTIVE STOPPING_COMPLETED STOPPING_CANCELED STOPPING_ERROR"
    " STOPPING_KILLED COMPLETED CANCELED ERROR DELETING DELETED DELETE_FAILED UNSPECIFIED"
)


def test_states_have_determineds_names_and_a_strange_one_is_unspecified():
    assert {state.name for state in ExperimentState} == set(STATES.split())
    assert {state.name for state in TrialState} == set(STATES.split()) - {
        "DELETING",
        "DELETED",
        "DELETE_FAILED",
    }
    for kind in (ExperimentState, TrialState, CheckpointState):
        assert kind("STATE_OF_THE_ART").name == "UNSPECIFIED"
        assert all(state.value == f"STATE_{state.name}" for state in kind)
