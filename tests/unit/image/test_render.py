from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from detbuild.image.render import DockerfilePlan, render
from detbuild.resources import templates_dir

GOLDEN = Path(__file__).parent / "golden"
CPU = "python:3.11-slim-bookworm"
CUDA = "nvidia/cuda:13.0.3-base-ubuntu24.04"
APT = ("python3", "python3-venv")
VARIANTS = {
    "cpu": DockerfilePlan(base=CPU, framework=True),
    "cpu-requirements": DockerfilePlan(base=CPU, framework=True, requirements="early"),
    "cpu-credentials": DockerfilePlan(base=CPU, framework=True, requirements="early", masked=True),
    "cpu-local-requirements": DockerfilePlan(base=CPU, framework=True, requirements="late"),
    "cpu-editable-requirements": DockerfilePlan(base=CPU, framework=True, requirements="copied"),
    "cpu-upload": DockerfilePlan(base=CPU, framework=True, requirements="early", session=False),
    "cuda": DockerfilePlan(base=CUDA, os="ubuntu24.04", apt=APT, framework=True, requirements="early"),
    "no-framework": DockerfilePlan(base=CPU),
    "own-image": DockerfilePlan(base="me/img:1", own_image=True),
    "own-image-requirements": DockerfilePlan(base="me/img:1", own_image=True, requirements="early"),
    "own-image-local-requirements": DockerfilePlan(base="me/img:1", own_image=True, requirements="late"),
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_dockerfile_is_the_golden_one(variant: str) -> None:
    """To accept a change: write the rendered text over the golden file and read the difference."""
    assert render(VARIANTS[variant], templates_dir()) == (GOLDEN / f"{variant}.Dockerfile").read_text()


def test_a_kept_text_is_the_rendered_one_and_a_damaged_one_is_rendered_again(tmp_path, variant) -> None:
    plan = VARIANTS[variant]
    first = render(plan, templates_dir(), cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    assert first == render(plan, templates_dir(), cache_dir=tmp_path) == render(plan, templates_dir())
    file.write_text(file.read_text().replace("FROM", "MORF"))
    assert render(plan, templates_dir(), cache_dir=tmp_path) == first


def test_a_changed_template_or_value_is_rendered_anew(tmp_path) -> None:
    templates, cache_dir = tmp_path / "templates", tmp_path / "kept"
    shutil.copytree(templates_dir(), templates)
    first = render(VARIANTS["cpu"], templates, cache_dir=cache_dir)
    assert render(VARIANTS["no-framework"], templates, cache_dir=cache_dir) != first
    with (templates / "pip.j2").open("a") as part:
        part.write("\n")
    with (templates / "Dockerfile.j2").open("a") as part:
        part.write("# one more line\n")
    assert render(VARIANTS["cpu"], templates, cache_dir=cache_dir) == f"{first}# one more line\n"


def test_every_golden_file_is_of_a_variant() -> None:
    assert {path.stem for path in GOLDEN.glob("*.Dockerfile")} == VARIANTS.keys()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed beside this Python")
    files = sorted(str(path) for path in GOLDEN.glob("*.Dockerfile"))
    done = subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_layers_go_from_what_changes_least_to_what_changes_most() -> None:
    text = render(VARIANTS["cuda"], templates_dir())
    steps = [
        "FROM ",
        "ENV ",
        "apt-get",
        "-m venv",
        "/build/framework/requirements.txt",
        "source=requirements",
        "source=harness",
        "COPY context/",
        "USER ",
        "ENTRYPOINT ",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


def test_a_name_that_the_template_misses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile.j2").write_text("FROM {{ bsae }}\n")
    with pytest.raises(jinja2.UndefinedError, match="bsae"):
        render(VARIANTS["cpu"], tmp_path)
