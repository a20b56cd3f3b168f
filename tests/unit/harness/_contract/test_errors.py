from __future__ import annotations

import pytest

from determined._contract import errors


def test_the_hint_is_added_to_the_text_once() -> None:
    error = errors.HarnessError("no disk", hint="free some space")
    errors.explain(error)
    errors.explain(error)
    assert (str(error), error.hint) == ("no disk\n  hint: free some space", "free some space")


@pytest.mark.parametrize("error", [errors.HarnessError("no disk"), ValueError("mine"), KeyboardInterrupt()])
def test_an_error_without_a_hint_stays_as_it_is(error: BaseException) -> None:
    before = str(error)
    errors.explain(error)
    assert str(error) == before


def test_hyperparameters_that_cannot_work_are_no_failure_of_the_run() -> None:
    assert not issubclass(errors.InvalidHP, errors.HarnessError)
    assert str(errors.InvalidHP()) == "..."  # as Determined's
    assert str(errors.InvalidHP("lr < 0")) == "lr < 0"


def test_what_cannot_succeed_unchanged_is_told_from_what_may() -> None:
    lasting = (errors.LoadError, errors.RemovedError)
    passing = (errors.CheckpointError, errors.StorageError)
    assert all(issubclass(kind, errors.InvalidTrialError) for kind in lasting)
    assert not any(issubclass(kind, errors.InvalidTrialError) for kind in passing)
    assert all(issubclass(kind, errors.HarnessError) for kind in (*lasting, *passing))


def test_a_removed_part_can_be_caught_as_an_import_error() -> None:
    with pytest.raises(ImportError, match="gone"):
        raise errors.RemovedError("gone", hint="use another")
