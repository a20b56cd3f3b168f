from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pytest

from detbuild.context.snapshot import ContextSnapshot, file_snapshot
from detbuild.image.host_settings import HostSettings
from detbuild.image.needs import read_needs
from detbuild.image.plan import (
    DockerfilePlan,
    ImagePlan,
    for_upload,
    pip_warnings,
    plan_image,
    render,
    with_host_settings,
)
from detbuild.image.resolve import Resolution, Target, resolve
from detbuild.image.table import load_table
from detbuild.resources import images_dir, templates_dir

if TYPE_CHECKING:
    from pathlib import Path


TABLE = load_table(images_dir())
TARGET = Target(gpu=False, python="3.11", machine="x86_64")
HARNESS = file_snapshot({"__init__.py": b"", "exec/__main__.py": b""})
PROGRAM = {"model_def.py": b"import torch"}
CANARY = "canary-5e1f"


def resolved(context: ContextSnapshot, *, target: Target = TARGET, image: str | None = None) -> Resolution:
    return resolve(read_needs(context), table=TABLE, target=target, image=image)


def plan(
    files: dict[str, bytes],
    *,
    target: Target = TARGET,
    image: str | None = None,
    base: str = "",
    base_digest: str = "",
    harness: ContextSnapshot = HARNESS,
) -> ImagePlan:
    context = file_snapshot(files)
    resolution = resolved(context, target=target, image=image)
    return plan_image(
        resolution,
        read_needs(context),
        base_image=base or resolution.bases[0],
        base_digest=base_digest,
        context=context,
        harness=harness,
        table=TABLE,
        templates=templates_dir(),
    )


def files_of(tree: ContextSnapshot) -> dict[str, bytes | None]:
    return {entry.path: entry.body for entry in tree.entries if entry.kind == "file"}


def test_each_part_of_the_image_is_a_tree_of_its_own() -> None:
    planned = plan({**PROGRAM, "requirements.txt": b"-r more/base.txt", "more/base.txt": b"scipy"})
    assert {name: files_of(tree) for name, tree in planned.trees.items()} == {
        "context": {**PROGRAM, "requirements.txt": b"-r more/base.txt", "more/base.txt": b"scipy"},
        "harness": {"determined/__init__.py": b"", "determined/exec/__main__.py": b""},
        "framework": {
            "requirements.txt": b"# torch 2.13.0 for CPU\ntorch==2.13.0\nnumpy\n",
            "constraints.txt": b"torch==2.13.0\n",
        },
        "requirements": {"requirements.txt": b"-r more/base.txt", "more/base.txt": b"scipy"},
    }


def test_labels_say_what_the_image_is() -> None:
    labels = dict(plan(PROGRAM, target=replace(TARGET, gpu=True)).labels)
    assert labels.pop("detbuild.version")
    assert re.fullmatch("[0-9a-f]{64}", labels.pop("detbuild.context"))
    assert re.fullmatch("[0-9a-f]{64}", labels.pop("detbuild.harness"))
    assert labels == {
        "detbuild.cuda": "13.0",
        "detbuild.frameworks": "torch 2.13.0 for CUDA 13.0",
        "detbuild.min_driver": "580",
        "org.opencontainers.image.base.name": "nvidia/cuda:13.0.3-base-ubuntu24.04",
        "org.opencontainers.image.title": "detbuild trial",
    }


def test_the_tag_is_64_hex_digits_and_the_same_for_the_same_inputs() -> None:
    assert re.fullmatch(r"detbuild:[0-9a-f]{64}", plan(PROGRAM).tag)
    assert plan(PROGRAM) == plan(PROGRAM)


@pytest.mark.parametrize(
    "other",
    [
        {"files": {"model_def.py": b"import torch "}},
        {"files": {**PROGRAM, "requirements.txt": b"numpy"}},
        {"target": replace(TARGET, gpu=True)},
        {"base": "detbuild-base:cpu-debian12-py3.11"},
        {"base_digest": "sha256:1"},
        {"image": "me/img:1"},
        {"harness": file_snapshot({"__init__.py": b"changed"})},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_tag_follows_every_input(other: dict) -> None:
    assert plan(**{"files": PROGRAM, **other}).tag != plan(PROGRAM).tag


def test_cpu_and_gpu_builds_on_one_base_do_not_share_a_cached_step() -> None:
    base = "detbuild-base:cpu-debian12-py3.11"
    cpu, gpu = (plan(PROGRAM, base=base, target=replace(TARGET, gpu=gpu)) for gpu in (False, True))
    assert cpu.trees["framework"].digest != gpu.trees["framework"].digest


def test_extras_are_kept_out_of_the_constraints() -> None:
    framework = plan({"model_def.py": b"import keras"}, target=replace(TARGET, gpu=True)).trees["framework"]
    assert files_of(framework) == {
        "requirements.txt": b"# tensorflow 2.21.0 for CUDA 12.9\ntensorflow[and-cuda]==2.21.0\n",
        "constraints.txt": b"tensorflow==2.21.0\n",
    }


def test_requirements_that_name_the_context_are_installed_after_it() -> None:
    planned = plan({**PROGRAM, "requirements.txt": b"-e .", "setup.py": b""})
    assert files_of(planned.trees["requirements"]) == {"requirements.txt": b"-e ."}
    late = planned.dockerfile.index("-r /build/requirements/requirements.txt")
    assert planned.dockerfile.index("COPY context/") < late


def test_an_image_of_ones_own_without_requirements_needs_no_network_and_no_pip() -> None:
    planned = plan(PROGRAM, image="me/img:1")
    assert planned.trees.keys() == {"context", "harness"}
    assert "pip" not in planned.dockerfile
    assert planned.local_trees == {}


def test_the_users_words_never_reach_the_dockerfile() -> None:
    words = b"# syntax=evil\nRUN evil\nEOF\n"
    planned = plan(
        {"model_def.py": b"import torch # RUN evil", "requirements.txt": words, "RUN evil.txt": words}
    )
    assert "evil" not in planned.dockerfile + planned.upload_dockerfile


def test_what_is_lent_changes_neither_tag_nor_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    network = HostSettings(
        pip={"index-url": f"https://u:{CANARY}@x.example"},
        ca=b"certificate",
        wheel_dirs=(tmp_path,),
        proxies={"HTTP_PROXY": "http://proxy.example"},
    )
    context = file_snapshot(PROGRAM)
    bare = plan(PROGRAM)
    lent = with_host_settings(bare, resolved(context), network, target=TARGET, credentials={})
    assert (lent.tag, lent.dockerfile, lent.labels, lent.trees) == (
        bare.tag,
        bare.dockerfile,
        bare.labels,
        bare.trees,
    )
    assert list(files_of(lent.local_trees["wheels"])) == ["torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"]
    assert lent.secrets["environment"] == b"export HTTP_PROXY='http://proxy.example'\n"
    assert CANARY.encode() in lent.secrets["pip.conf"]
    assert CANARY not in repr(lent)


def test_a_build_that_the_default_index_does_not_have_is_warned_about_where_nothing_else_is_named() -> None:
    resolution = resolved(file_snapshot(PROGRAM))

    def warned(network: HostSettings, machine: str = "x86_64") -> list[str]:
        found = pip_warnings(plan(PROGRAM), resolution, network, target=replace(TARGET, machine=machine))
        return [warning.message for warning in found if "README.md" in warning.hint]

    (message,) = warned(HostSettings())
    assert message.startswith("pip's settings have no index for torch 2.13.0 for CPU;")
    assert warned(HostSettings(), machine="aarch64") == []
    for option in ("index-url", "extra-index-url", "find-links", "no-index"):
        assert warned(HostSettings(pip={option: "x"})) == []
    default = resolved(file_snapshot(PROGRAM), target=replace(TARGET, gpu=True))
    assert pip_warnings(plan(PROGRAM), default, HostSettings(), target=TARGET) == ()


def test_a_loopback_proxy_is_warned_about_with_a_hint() -> None:
    network = HostSettings(pip={"no-index": "1"}, warnings=("HTTP_PROXY is this host's loopback",))
    (warning,) = pip_warnings(plan(PROGRAM), resolved(file_snapshot(PROGRAM)), network, target=TARGET)
    assert (warning.message, bool(warning.hint)) == (network.warnings[0], True)


def test_a_host_without_an_index_builds_without_network() -> None:
    lent = with_host_settings(
        plan(PROGRAM),
        resolved(file_snapshot(PROGRAM)),
        HostSettings(pip={"no-index": "true"}),
        target=TARGET,
        credentials={},
    )
    assert not lent.pip_network


def test_an_upload_carries_as_files_what_a_session_would_serve() -> None:
    network = HostSettings(ca=b"certificate")
    lent = with_host_settings(
        plan(PROGRAM), resolved(file_snapshot(PROGRAM)), network, target=TARGET, credentials={}
    )
    upload = for_upload(lent)
    assert (upload.tag, upload.secrets) == (lent.tag, {})
    assert files_of(upload.local_trees["secrets"]) == lent.secrets
    assert "type=secret" in lent.dockerfile
    assert "type=secret" not in upload.dockerfile
    assert "source=secrets,target=/run/secrets" in upload.dockerfile


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
