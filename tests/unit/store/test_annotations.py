from __future__ import annotations

import pytest

from detbuild.errors import EngineError
from detbuild.store.annotations import change_metadata, metadata_of

STORED = {"steps_completed": 3}


def test_metadata_are_those_stored_until_somebody_changes_them(tmp_path):
    assert metadata_of(tmp_path, "u", STORED) == STORED
    change_metadata(tmp_path, "u", STORED, lambda before: {**before, "good": True})
    assert metadata_of(tmp_path, "u", STORED) == {"steps_completed": 3, "good": True}
    assert metadata_of(tmp_path, "other", {}) == {}


def test_metadata_may_all_be_taken_away(tmp_path):
    change_metadata(tmp_path, "u", STORED, lambda _before: {})
    assert metadata_of(tmp_path, "u", STORED) == {}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(EngineError, match=r"annotations\.json"):
        metadata_of(tmp_path, "u", STORED)
