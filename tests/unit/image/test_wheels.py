from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from detbuild.context.snapshot import HashCache
from detbuild.image.wheels import needed_wheels

if TYPE_CHECKING:
    import os
    from pathlib import Path


def wheel(folder: Path, name: str, *requires: str) -> None:
    project, version = name.split("-")[:2]
    lines = [f"Name: {project}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{project}-{version}.dist-info/METADATA", "\n".join(lines))


def names(folder: Path, *lines: str, cuda: bool = False) -> list[str]:
    return [entry.path for entry in needed_wheels([folder], lines, machine="x86_64", cuda=cuda).entries]


def test_only_what_is_asked_for_and_what_that_needs_goes_along(tmp_path: Path) -> None:
    wheel(tmp_path, "my_lib-1.0-py3-none-any.whl", "Base.Lib>=1", 'extra-lib; extra == "x"')
    wheel(tmp_path, "base_lib-1.2-py3-none-any.whl")
    wheel(tmp_path, "extra_lib-1.0-py3-none-any.whl")
    wheel(tmp_path, "other-1.0-py3-none-any.whl")
    (tmp_path / "my_lib-1.0.tar.gz").touch()
    assert names(tmp_path, "my-lib") == [
        "base_lib-1.2-py3-none-any.whl",
        "extra_lib-1.0-py3-none-any.whl",
        "my_lib-1.0-py3-none-any.whl",
    ]


def test_other_versions_and_other_machines_stay(tmp_path: Path) -> None:
    for name in (
        "x-1.0-py3-none-any.whl",
        "x-2.0-py3-none-manylinux_2_28_aarch64.whl",
        "x-2.0-cp311-cp311-linux_x86_64.whl",
    ):
        wheel(tmp_path, name)
    assert names(tmp_path, "x>=2") == ["x-2.0-cp311-cp311-linux_x86_64.whl"]


@pytest.mark.parametrize(("cuda", "build"), [(False, "+cpu"), (True, "+cu126")])
def test_a_build_for_another_device_stays(tmp_path: Path, build: str, *, cuda: bool) -> None:
    for local in ("+cpu", "+cu126"):
        wheel(tmp_path, f"torch-2.13.0{local}-cp311-cp311-linux_x86_64.whl")
    assert names(tmp_path, "torch==2.13.0", cuda=cuda) == [
        f"torch-2.13.0{build}-cp311-cp311-linux_x86_64.whl"
    ]


def test_a_file_that_is_no_wheel_inside_still_goes_along_for_pip_to_judge(tmp_path: Path) -> None:
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"not a zip")
    (tmp_path / "strange.whl").touch()
    assert names(tmp_path, "x") == ["x-1-py3-none-any.whl"]


def test_a_changed_wheel_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    wheel(tmp_path, "x-1-py3-none-any.whl")
    before = needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False)
    wheel(tmp_path, "x-1-py3-none-any.whl", "y")
    assert needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False).digest != before.digest


def test_the_first_folder_that_has_a_wheel_gives_it(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        wheel(tmp_path / folder, "x-1-py3-none-any.whl")
    (entry,) = needed_wheels(
        [tmp_path / "first", tmp_path / "second"], ["x"], machine="x86_64", cuda=False
    ).entries
    assert entry.source == str(tmp_path / "first" / "x-1-py3-none-any.whl")


class Remembered(HashCache):
    def sha256(self, source: bytes, seen: os.stat_result) -> tuple[str, int]:
        return "remembered", seen.st_size


def test_hashes_of_earlier_builds_are_used(tmp_path: Path) -> None:
    wheel(tmp_path, "x-1-py3-none-any.whl")
    cache = Remembered(tmp_path / "hashes")
    (entry,) = needed_wheels([tmp_path], ["x"], machine="x86_64", cuda=False, cache=cache).entries
    assert entry.sha256 == "remembered"
