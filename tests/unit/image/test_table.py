from __future__ import annotations

import json

import pytest

from detbuild.image.requirements import release
from detbuild.image.resolve import check_reference
from detbuild.image.table import load_table
from detbuild.resources import images_dir

TABLE = load_table(images_dir())


@pytest.mark.parametrize("framework", TABLE.frameworks.values(), ids=lambda framework: framework.name)
def test_releases_are_in_order_and_the_default_is_one_of_them(framework) -> None:
    versions = [row.version for row in framework.releases]
    assert versions == sorted(versions, key=release)
    assert framework.default in versions


def test_every_base_is_a_reference_that_can_be_asked_for() -> None:
    for base in TABLE.bases:
        assert check_reference(base.pinned) == base.pinned
        assert TABLE.base(base.pinned) == base


def test_every_release_has_a_cuda_base_and_every_build_is_described() -> None:
    families = {base.cuda for base in TABLE.bases}
    for framework in TABLE.frameworks.values():
        for row in framework.releases:
            assert ".".join(row.cuda.split(".")[:2]) in families
            assert {TABLE.builds[name].cuda for name in row.builds} <= families


def test_the_table_says_when_and_where_its_facts_were_read() -> None:
    raw = json.loads((images_dir() / "table.json").read_text())
    assert raw["read_on"]
    assert all(framework["source"] for framework in raw["frameworks"].values())
