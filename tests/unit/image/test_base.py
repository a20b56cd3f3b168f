from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.errors import EngineError
from detbuild.image.base import bootstrap, bootstrap_tag, can_bootstrap, choose_base
from detbuild.image.choice import Target
from detbuild.image.frameworks import ContextNeeds
from detbuild.image.resolve import resolve
from detbuild.image.table import load_table
from detbuild.resources import images_dir

if TYPE_CHECKING:
    from pathlib import Path

TABLE = load_table(images_dir())
RESOLUTION = resolve(ContextNeeds(), table=TABLE, target=Target(gpu=False, python="3.11", machine="x86_64"))


def script(folder: Path, text: str) -> Path:
    (folder / "bootstrap.sh").write_text(text)
    return folder


def test_a_base_that_is_there_is_taken_before_one_that_must_be_pulled() -> None:
    there = {"detbuild-base:cpu-debian12-py3.11"}
    assert choose_base(RESOLUTION, there.__contains__) == "detbuild-base:cpu-debian12-py3.11"
    assert choose_base(RESOLUTION, lambda _: False) == "python:3.11-slim-bookworm"


def test_only_a_fitting_base_is_worth_making() -> None:
    assert can_bootstrap(RESOLUTION, TABLE, "detbuild-base:cpu-debian12-py3.11")
    assert not can_bootstrap(RESOLUTION, TABLE, "python:3.11-slim-bookworm")
    assert not can_bootstrap(RESOLUTION, TABLE, "detbuild-base:unheard-of")


def test_the_script_is_asked_for_the_tag_and_for_the_file(tmp_path: Path) -> None:
    images = script(tmp_path, 'if [ "$1" = --tag ]; then echo base:1; else echo rootfs >"$1"; fi\n')
    assert bootstrap_tag(images) == "base:1"
    bootstrap(images, tmp_path / "root.tar")
    assert (tmp_path / "root.tar").read_text() == "rootfs\n"


def test_the_scripts_own_words_are_the_reason_of_a_failure(tmp_path: Path) -> None:
    images = script(tmp_path, "echo 'noise' >&2; echo 'bootstrap: needs root' >&2; exit 1\n")
    with pytest.raises(EngineError, match="no base image could be made from Debian packages: needs root"):
        bootstrap(images, tmp_path / "root.tar")


def test_tags_of_the_script_are_in_the_table() -> None:
    text = (images_dir() / "bootstrap.sh").read_text()
    local = {base.reference for base in TABLE.bases if base.local}
    assert all(tag in text for tag in local)
    assert len(local) == text.count("echo detbuild-base:")
