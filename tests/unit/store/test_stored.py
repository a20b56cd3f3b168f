from __future__ import annotations

import pytest

from detbuild.store import journal
from detbuild.store.stored import Stored
from determined._records import Checkpoint

UPLOADED = journal.CheckpointUploaded(uuid="a")
INTENDED = journal.UploadIntended(uuid="a")
REFUSED = journal.UploadRejected(uuid="a", why="damaged")
DELETED = journal.CheckpointsDeleted(uuids=("a", "b"))
REMOVED = journal.CheckpointsRemoved(uuids=("a", "b"))
PARTLY = journal.FilesDeleted(uuid="a", paths=("optimizer",))
PARTED = journal.FilesRemoved(uuid="a")


@pytest.mark.parametrize(
    ("facts", "damaged", "state"),
    [
        ((), False, "COMPLETED"),
        ((), True, "ERROR"),
        ((UPLOADED,), True, "COMPLETED"),  # what is damaged is the copy
        ((REFUSED,), False, "ERROR"),
        ((UPLOADED, PARTLY), False, "PARTIALLY_DELETED"),
        ((UPLOADED, PARTLY, DELETED), False, "DELETED"),
        ((DELETED, REMOVED), True, "DELETED"),
    ],
)
def test_the_state_of_a_checkpoint(facts: tuple[journal.Fact, ...], damaged: bool, state: str) -> None:
    assert Stored.of(facts).state("a", damaged=damaged) == state


@pytest.mark.parametrize(
    ("facts", "has_pending"),
    [
        ((), False),
        ((INTENDED,), True),
        ((INTENDED, UPLOADED), False),
        ((INTENDED, REFUSED), False),
        ((INTENDED, DELETED), True),
        ((INTENDED, DELETED, REMOVED), False),
        ((PARTLY,), True),
        ((PARTLY, PARTED), False),
    ],
)
def test_what_is_begun_is_known_until_it_is_finished(
    facts: tuple[journal.Fact, ...], has_pending: bool
) -> None:
    assert Stored.of(facts).has_pending is has_pending


def test_deleted_files_are_no_part_of_a_checkpoint() -> None:
    checkpoint = Checkpoint("a", 1, {"weights": 3, "optimizer": 5})
    assert Stored.of([PARTLY]).left(checkpoint) == {"weights": 3}
    assert Stored().left(checkpoint) == {"weights": 3, "optimizer": 5}


def test_every_fact_survives_the_journal() -> None:
    trouble = journal.StorageBlocked(why="away")
    for fact in (UPLOADED, INTENDED, REFUSED, DELETED, REMOVED, PARTLY, PARTED, trouble):
        entry = journal.Entry(1.0, fact)
        assert journal.decode(journal.encode(entry)) == entry
