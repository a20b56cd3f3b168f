from __future__ import annotations

import json


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
