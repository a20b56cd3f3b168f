from __future__ import annotations

from determined import errors
from determined._contract.errors import CheckpointError, InvalidTrialError


def test_what_user_code_catches_is_what_the_harness_raises() -> None:
    assert errors.CheckpointStateException is CheckpointError
    assert errors.InvalidExperimentException is InvalidTrialError
    assert set(errors.__all__) == {"CheckpointStateException", "InvalidExperimentException"}
