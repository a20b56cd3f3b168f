"""A secret in every source, and a look into every sink: nothing of it is shown, sent or left lying open."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from detbuild.image.plan import for_upload

CANARY = "c4n4ry-hunter2"
SUBMITTED = f"""\
name: tiny from https://{CANARY}-name@hub.example/x
description: see https://wiki:{CANARY}-description@wiki.example/page
entrypoint: model_def:Tiny
searcher: {{name: single, metric: validation_loss, max_length: {{batches: 1}}}}
hyperparameters: {{weights: 'https://hub:{CANARY}-hparam@hub.example/w.pt'}}
resources: {{slots_per_trial: 0}}
data:
  url: https://data:{CANARY}-data-url@data.example/set
  secrets: {{token: {CANARY}-data-secret}}
environment:
  environment_variables: [COLOUR={CANARY}-variable, WANDB_API_KEY={CANARY}-key]
  registry_auth: {{username: {CANARY}-registry-user, password: {CANARY}-registry-password}}
  pod_spec: {{spec: {{token: {CANARY}-pod}}}}
integrations: {{pachyderm: {{token: {CANARY}-pachyderm}}}}
slurm: {{sbatch_args: [--export=A={CANARY}-slurm]}}
tensorboard_storage: {{secret_key: {CANARY}-tensorboard}}
"""
HOST = f"""\
task_container_defaults:
  startup_hook: "export HOOK={CANARY}-hook"
  environment_variables: [HOSTS={CANARY}-host-variable]
"""
TEMPLATE = f"environment: {{environment_variables: [MINE={CANARY}-template]}}\n"
REQUIREMENTS = f"--extra-index-url https://me:{CANARY}-requirement@index.example/simple\ntqdm\n-r more.lst\n"
MORE = f"pkg @ https://{CANARY}-nested@index.example/pkg-1-py3-none-any.whl\n"
HOSTS_OWN = {
    "HTTPS_PROXY": f"http://me:{CANARY}-proxy@proxy.example:3128",
    "PIP_INDEX_URL": f"https://me:{CANARY}-pip@index.example/simple",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
}


@pytest.fixture
def planted(shell, project: Path, tmp_path: Path):
    """The project with a canary everywhere, in a home that was made open to everybody, without a umask."""
    mount = tmp_path / f"{CANARY}-mount"
    mount.mkdir()
    config = f"{SUBMITTED}bind_mounts: [{{host_path: {mount}, container_path: data}}]\n"
    (project / "const.yaml").write_text(config)
    (project / "other.yaml").write_text(config)
    (project / "requirements.txt").write_text(REQUIREMENTS)
    (project / "more.lst").write_text(MORE)
    before = os.umask(0)
    shell.home.mkdir(mode=0o755)
    (shell.home / "config.yaml").write_text(HOST)
    (shell.home / "templates").mkdir(mode=0o755)
    (shell.home / "templates" / "mine.yaml").write_text(TEMPLATE)
    shell.environ.update(HOSTS_OWN)
    yield shell
    os.umask(before)


def created(shell) -> None:
    outcome = shell("detbuild", "create", "const.yaml", ".", "--template", "mine", "-f")
    assert outcome.code == 0, outcome.err
    assert CANARY not in outcome.out + outcome.err
    run = shell.home / "experiments" / "1" / "runs" / "1-0"
    (run / "stdout.log").write_text(
        f"COLOUR={CANARY}-variable {CANARY}-data-secret {CANARY}-key {CANARY}-hook {CANARY}-template\n"
        f"https://u:{CANARY}-in-the-log@host\n{CANARY}-registry-password {CANARY}-aws\n"
        f"{CANARY}-host-variable\n"
    )
    (shell.home / "experiments" / "1" / "controller.log").write_text(f"{CANARY}-variable {CANARY}-proxy\n")


@pytest.mark.parametrize(
    "words",
    [
        ("config", "check", "const.yaml"),
        ("config", "check", "const.yaml", "--json"),
        ("render", "const.yaml", "."),
        ("render", "const.yaml", ".", "--json"),
        ("create", "const.yaml", ".", "--dry-run"),
    ],
    ids=" ".join,
)
def test_what_shows_a_config_masks_it_and_shows_secrets_when_asked(planted, words) -> None:
    words = ("detbuild", *words, "--template", "mine")
    shown = planted(*words)
    assert shown.code == 0, shown.err
    hidden = (shown.out + shown.err).replace(f"{CANARY}-mount", "")  # the owner sees where a mount comes from
    assert CANARY not in hidden
    asked = planted(*words, "--show-secrets").out
    for name in ("variable", "key", "template", "host-variable"):
        assert f"{CANARY}-{name}" in asked


def test_neither_the_image_nor_its_labels_hold_a_secret(planted) -> None:
    created(planted)
    (plan,) = planted.engine.built
    for one in (plan, for_upload(plan)):
        trees = [*one.trees.values(), *(tree for name, tree in one.local_trees.items() if name != "secrets")]
        for entry in (entry for tree in trees for entry in tree.entries):
            if entry.kind == "file" and "harness" not in entry.source:
                body = entry.body if entry.body is not None else Path(entry.source).read_bytes()
                assert CANARY.encode() not in body, entry.path
        texts = (one.dockerfile, one.upload_dockerfile, json.dumps(dict(one.labels)), one.tag, repr(one))
        assert CANARY not in "".join(texts)
    lent = plan.secrets["environment"].decode()
    assert all(f"{CANARY}-{name}" in lent for name in ("requirement", "nested", "proxy"))
    assert f"{CANARY}-pip" in plan.secrets["pip.conf"].decode()


def test_a_container_has_secrets_in_its_environment_alone(planted) -> None:
    created(planted)
    for container in planted.engine.containers.values():
        spec = asdict(container.spec)
        env, mounts = spec.pop("env"), spec.pop("mounts")
        assert CANARY not in json.dumps(spec, default=str)
        assert env["COLOUR"] == f"{CANARY}-variable"
        assert any(CANARY in mount["source"] for mount in mounts)


@pytest.mark.parametrize(
    "words",
    [
        ("detbuild", "list", "--json"),
        ("detbuild", "list"),
        ("detbuild", "describe", "1"),
        ("detbuild", "describe", "1", "--json"),
        ("detbuild", "describe", "1", "--metrics", "--json"),
        ("det", "experiment", "config", "1"),
        ("det", "experiment", "list-trials", "1", "--json"),
        ("det", "experiment", "list-trials", "1", "--csv"),
        ("det", "trial", "describe", "1/1", "--json"),
    ],
    ids=" ".join,
)
def test_answers_hold_no_secret(planted, words) -> None:
    created(planted)
    outcome = planted(*words)
    assert outcome.code == 0, outcome.err
    assert CANARY not in (outcome.out + outcome.err).replace(f"{CANARY}-mount", "")


def test_report_and_bundle_hold_nothing_of_any_source(planted, tmp_path: Path) -> None:
    created(planted)
    assert planted("detbuild", "report", "1", "-o", str(tmp_path / "report.html")).code == 0
    assert CANARY not in (tmp_path / "report.html").read_text()
    bundle = planted("det", "trial", "support-bundle", "1/1", "-o", str(tmp_path / "out")).out.strip()
    with tarfile.open(bundle) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            body = file.read()
            assert CANARY.encode() not in body, member.name
            if member.name.endswith("config.json"):
                assert b"COLOUR=" in body
                assert b"WANDB_API_KEY=" in body


def test_errors_hold_no_secret(planted, project: Path) -> None:
    text = (project / "const.yaml").read_text()
    (project / "const.yaml").write_text(text.replace("COLOUR=", "9") + "max_restarts: -1\nnothing: 1\n")
    outcome = planted("detbuild", "create", "const.yaml", ".")
    assert outcome.code == 2
    assert CANARY not in outcome.err


def test_all_that_detbuild_makes_in_its_home_is_closed_to_others(planted, tmp_path: Path) -> None:
    created(planted)
    assert (
        planted("detbuild", "template", "set", "second", str(tmp_path / "project" / "const.yaml")).code == 0
    )
    assert planted("detbuild", "model", "create", "net").code == 0
    assert planted("detbuild", "describe", "1").code == 0
    users_own = {planted.home, planted.home / "config.yaml", planted.home / "templates" / "mine.yaml"}
    of_trial = planted.home / "experiments" / "1" / "checkpoints"
    written_here = {"stdout.log", "controller.log"}  # by this test
    wrong = [
        f"{path.relative_to(planted.home)} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in planted.home.rglob("*")
        if path not in users_own and of_trial not in path.parents and path.name not in written_here
        if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077
    ]
    assert wrong == []


def test_what_the_user_names_is_left_to_the_umask(planted, tmp_path: Path) -> None:
    created(planted)
    assert planted("detbuild", "report", "1", "-o", str(tmp_path / "report.html")).code == 0
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o666


def test_what_only_shows_runs_no_class_of_a_custom_search(shell, project: Path) -> None:
    (project / "mine.py").write_text("open('it-ran', 'w')\nclass Search: ...\n")
    (project / "const.yaml").write_text(
        "entrypoint: model_def:Tiny\nresources: {slots_per_trial: 0}\n"
        "searcher: {name: custom, metric: x, hook: 'mine:Search', max_length: {batches: 1}}\n"
    )
    for words in (("render", "const.yaml", "."), ("create", "const.yaml", ".", "--dry-run")):
        outcome = shell("detbuild", *words)
        assert outcome.code == 0, outcome.err
        assert "hparams: computed by the custom search at run time" in outcome.out
    assert json.loads(shell("detbuild", "render", "const.yaml", ".", "--json").out)["run"]["hparams"] is None
    assert shell("detbuild", "context", ".").code == 0
    assert shell("detbuild", "config", "check", "const.yaml").code == 0
    assert not (project / "it-ran").exists()
