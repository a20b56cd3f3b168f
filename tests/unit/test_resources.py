from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from detbuild import resources

if TYPE_CHECKING:
    from pathlib import Path

SHOW = "from detbuild import resources as r; print(r.templates_dir(), r.images_dir(), r.harness_dir())"


def test_a_checkout_has_them_beside_the_package() -> None:
    assert (resources.templates_dir() / "Dockerfile.j2").is_file()
    assert (resources.images_dir() / "table.json").is_file()
    assert (resources.harness_dir() / "_contract" / "run_info.py").is_file()


def test_an_installed_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "detbuild" / "_data" / "templates").mkdir(parents=True)
    (site / "detbuild" / "_data" / "images").mkdir()
    (site / "determined").mkdir()
    (site / "determined" / "__init__.py").touch()
    (site / "detbuild" / "__init__.py").touch()
    shutil.copy(resources.__file__, site / "detbuild" / "resources.py")
    shown = subprocess.run(
        [sys.executable, "-S", "-c", SHOW], cwd=site, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [
        str(site / "detbuild" / "_data" / "templates"),
        str(site / "detbuild" / "_data" / "images"),
        str(site / "determined"),
    ]
