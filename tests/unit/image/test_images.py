from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detbuild.image.table import load_table
from detbuild.resources import images_dir

IMAGES = images_dir()


def test_the_bake_file_is_in_step_with_the_table() -> None:
    """When it is not: python images/generate.py > images/docker-bake.hcl"""
    bake_file = runpy.run_path(str(IMAGES / "generate.py"))["bake_file"]
    assert (IMAGES / "docker-bake.hcl").read_text() == bake_file(load_table(IMAGES))


def test_hadolint_finds_nothing_in_the_environments_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed beside this Python")
    done = subprocess.run(
        [hadolint, "--no-color", IMAGES / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_bootstrap_says_how_it_is_used() -> None:
    done = subprocess.run(["sh", IMAGES / "bootstrap.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "bootstrap: usage: bootstrap.sh FILE | --tag\n")


def test_the_bootstrap_is_plain_posix_shell() -> None:
    dash = shutil.which("dash") or shutil.which("sh")
    assert dash is not None
    subprocess.run([dash, "-n", IMAGES / "bootstrap.sh"], check=True)
