from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def submitted(shell, project) -> str:
    """The image of an experiment that is over, two days old."""
    assert shell("detbuild", "create", "const.yaml", ".", "-q").code == 0
    (image,) = (image for image in shell.engine.images.values() if "detbuild.context" in image.labels)
    image.created = time.time() - 2 * 86400
    return image.id


def listed(shell) -> list[dict]:
    return json.loads(shell("detbuild", "image", "list", "--json").out)


def test_images_of_experiments_are_listed_and_no_others(shell, submitted: str) -> None:
    (row,) = listed(shell)
    assert (row["id"], row["containers"], row["experiments"]) == (submitted, 0, [])
    table = shell("detbuild", "image", "list").out
    assert submitted[7:19] in table
    assert shell("detbuild", "image", "list", "-q").out == f"{submitted}\n"


def test_unused_images_are_removed_and_bases_stay(shell, submitted: str) -> None:
    before = len(shell.engine.images)
    outcome = shell("detbuild", "image", "prune")
    assert (outcome.code, outcome.out) == (0, f"{submitted}\n")
    assert "removed 1 of 1 image, freeing 1.0 MB" in outcome.err
    assert len(shell.engine.images) == before - 1
    assert listed(shell) == []


def test_a_dry_run_removes_nothing(shell, submitted: str) -> None:
    assert shell("detbuild", "image", "prune", "--dry-run").out == f"{submitted}\n"
    assert len(listed(shell)) == 1


def test_what_is_young_stays_unless_it_is_asked_for(shell, submitted: str) -> None:
    shell.engine.images[submitted].created = time.time() - 60
    assert shell("detbuild", "image", "prune").out == ""
    assert shell("detbuild", "image", "prune", "--older-than", "0").out == f"{submitted}\n"


def test_a_base_that_is_there_is_enough(shell):
    outcome = shell("detbuild", "base", "ensure")
    assert outcome.code == 0
    assert shell.engine.image_id(outcome.out.strip()) is not None
    assert shell.engine.effects.done == []


def test_the_table_says_which_bases_are_there(shell):
    rows = json.loads(shell("detbuild", "base", "list", "--json").out)
    present = [row["reference"] for row in rows if row["present"]]
    assert "detbuild-base:cpu-debian12-py3.11" in present
    assert len(present) < len(rows)
    assert shell("detbuild", "base", "list").out.splitlines()[0].split() == [
        "BASE",
        "PYTHON",
        "CUDA",
        "PRESENT",
    ]


def test_a_bootstrapped_base_is_imported_under_its_tag(shell, monkeypatch):
    monkeypatch.setattr("detbuild.engine.bases.bootstrap_tag", lambda _images: "detbuild-base:made")
    monkeypatch.setattr("detbuild.engine.bases.bootstrap", lambda _images, path: path.write_bytes(b"tar"))
    assert shell("detbuild", "base", "bootstrap").out == "detbuild-base:made\n"
    assert shell.engine.effects.done == ["import detbuild-base:made"]
